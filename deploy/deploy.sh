#!/usr/bin/env bash
# Builds the image and replaces the two Pagodas of deploy/compose one after another; goes back to the image before when
# one does not become ready. Whoever asks through nginx notices nothing.
#   deploy/deploy.sh [cpu|gpu]
set -euo pipefail

profile=${1:-cpu}
case "$profile" in
  cpu) tag=cpu services=(pagoda-a pagoda-b) ;;
  gpu) tag=cuda services=(pagoda-a-gpu pagoda-b-gpu) ;;
  *) echo "deploy.sh: $profile is no profile; write cpu or gpu." >&2; exit 2 ;;
esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
image=${PAGODA_IMAGE:-pagoda}
wait_seconds=${READY_SECONDS:-300}
look_seconds=${LOOK_SECONDS:-2}

compose() { docker compose --file "$here/compose/compose.yaml" --project-directory "$here/compose" --profile "$profile" "$@"; }

# Waits until a service's own health check is content.
ready() {
  local container state end=$((SECONDS + wait_seconds))
  while true; do
    container=$(compose ps --quiet "$1")
    state=$(docker inspect --format '{{.State.Health.Status}}' "$container" 2>/dev/null || true)
    [ "$state" = healthy ] && return 0
    [ "$state" = unhealthy ] && return 1
    [ "$SECONDS" -ge "$end" ] && return 1
    sleep "$look_seconds"
  done
}

replace() {
  compose up --detach --no-deps --force-recreate "$1"
  ready "$1"
}

before=$(docker image inspect --format '{{.Id}}' "$image:$tag" 2>/dev/null || true)

echo "Building $image:$tag."
docker build --file "$here/docker/$tag.Dockerfile" --build-arg "MODELS=${MODELS:-}" --tag "$image:candidate" "$root"
docker tag "$image:candidate" "$image:$tag"

# What stands around the Pagodas; it is left alone where it already runs.
compose up --detach --no-recreate redis-cache redis-limits postgres prometheus grafana nginx

replaced=()
for service in "${services[@]}"; do
  echo "Replacing $service."
  replaced+=("$service")
  replace "$service" && continue
  compose logs --tail 30 "$service" >&2 || true
  if [ -z "$before" ]; then
    echo "deploy.sh: $service did not become ready, and there is no image before this one to go back to." >&2
    exit 1
  fi
  echo "deploy.sh: $service did not become ready; going back to the image before." >&2
  docker tag "$before" "$image:$tag"
  for back in "${replaced[@]}"; do
    if ! replace "$back"; then
      echo "deploy.sh: $back did not become ready with the image before either; look at its log." >&2
      exit 3
    fi
  done
  echo "deploy.sh: the image before serves again; nothing has changed." >&2
  exit 1
done
echo "Done: ${services[*]} run $image:$tag."
