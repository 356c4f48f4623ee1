"""A person's way in a real browser: the dashboard of the awaithumans server in headless Chromium."""
