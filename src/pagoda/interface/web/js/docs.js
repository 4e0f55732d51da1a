// The API reference: the vendored Swagger UI over this service's own OpenAPI document.

const base = new URL(".", document.baseURI);

async function show() {
  const response = await fetch(new URL("openapi.json", base));
  if (!response.ok) throw new Error(`openapi.json: HTTP ${response.status}`);
  const spec = await response.json();
  // "Try it out" must reach the service where this page was found, whatever prefix a proxy put before it.
  spec.servers = [{ url: base.href.replace(/\/$/, "") }];
  window.SwaggerUIBundle({
    dom_id: "#reference",
    spec,
    deepLinking: true,
    tryItOutEnabled: true,
    validatorUrl: null,
    defaultModelsExpandDepth: 0,
    docExpansion: "list",
  });
}

show().catch((error) => {
  document.getElementById("reference").textContent = `${error.message}`;
});
