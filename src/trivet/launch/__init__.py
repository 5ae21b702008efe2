"""Operations as data, and the static C launcher that executes them."""
