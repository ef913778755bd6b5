# `make book`, `make check` and `make test` are all the set-up there is: Python >= 3.11 and make come first, the rest is here.

PYTHON ?= python3
CHAPTERS ?= $(wildcard notebooks/*.ipynb)
PORT ?= 8000

BIN := .venv/bin
# One thread a worker, so that results vary less with the number of cores; a third worker fills the waits for the browser.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile
PAGES := tests/test_rendered.py tests/test_colab.py tests/test_notebooks.py tests/test_your_model.py

.PHONY: book style check test run serve clean

book: .venv/installed
	rm -rf _build
	$(BIN)/jupyter-book build . -n -W --keep-going --quiet
	@echo "The book is at _build/html/index.html"

style: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# All but the book: what to run after a change of the package.
check: style
	$(PYTEST) tests $(addprefix --ignore=,$(PAGES))

test: book style
	$(PYTEST) --nbval tests notebooks

run: .venv/installed
	$(BIN)/python book/run.py $(CHAPTERS)

serve:
	$(PYTHON) -m http.server --directory _build/html $(PORT)

clean:
	rm -rf _build .venv

.venv/installed: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@
