# `make book` and `make test` are all the set-up there is: Python >= 3.11 and make come first, the rest is here.

PYTHON ?= python3
CHAPTERS ?= $(wildcard notebooks/*.ipynb)
PORT ?= 8000

BIN := .venv/bin

.PHONY: book test run serve clean

book: .venv/installed
	rm -rf _build
	$(BIN)/jupyter-book build . -n -W --keep-going --quiet
	@echo "The book is at _build/html/index.html"

# One thread a worker: two workers on two cores, and numbers that depend on the number of cores less.
test: book
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --nbval tests notebooks

run: .venv/installed
	$(BIN)/python book/run.py $(CHAPTERS)

serve:
	$(PYTHON) -m http.server --directory _build/html $(PORT)

clean:
	rm -rf _build .venv

.venv/installed: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@
