"""What keys and teams may use: rates, concurrency and budgets, reserved before a call and settled after it; usage."""
