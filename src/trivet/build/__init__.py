"""Images from Dockerfiles.

    text ── source ──▶ lines ── dockerfile ──▶ instructions ── graph ──▶ stages
                                                                 │
    tar  ── context ──▶ private tree ── selection ──▶ content    ▼
                                            └──────▶ cachekey ─▶ build ──▶ steps ──▶ image

Everything up to `graph` is pure. `build` walks the wanted stages; `state` is what a stage is after a
step (configuration, layers, cache key); `run` and `transfer` change files inside the step's root.
"""
