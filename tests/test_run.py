"""`make run` stores a chapter whole or not at all, and the same every time."""

import runpy
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

main = runpy.run_path(str(Path(__file__).parents[1] / "book" / "run.py"))["main"]


def write(path: Path, *sources: str) -> None:
    cells = [new_markdown_cell("# A title"), *map(new_code_cell, sources)]
    cells[1].metadata["collapsed"] = True
    cells[1].metadata["tags"] = ["hide-input"]
    nbformat.write(new_notebook(cells=cells, metadata={"authors": [{"name": "me"}]}), path)


def test_a_chapter_is_stored_with_its_outputs_and_clean_metadata(tmp_path: Path, capsys) -> None:
    path = tmp_path / "chapter.ipynb"
    write(path, "x = 1", "print(x)", "x = 1")
    assert main([str(path)]) == 0
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2, 3]
    assert notebook.cells[2].outputs[0].text == "1\n"
    assert notebook.cells[1].metadata == {"tags": ["hide-input"]}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}

    stored = path.read_bytes()
    assert main([str(path)]) == 0
    assert "chapter.ipynb: cell 2: the first code cell" in capsys.readouterr().out  # a rule that it breaks
    assert path.read_bytes() == stored


def test_a_chapter_with_a_failing_cell_stays_as_it_was(tmp_path: Path, capsys) -> None:
    path = tmp_path / "chapter.ipynb"
    write(path, "x = 1", "x / 0")
    before = path.read_bytes()
    assert main([str(path)]) == 1
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_no_chapter_at_all_is_a_failure() -> None:
    assert main([]) == 1
