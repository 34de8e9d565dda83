"""Tables as people have them: other names of columns, other separators, rows and labels that cannot be used."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from tlkit.data import load
from tlkit.data.sources import Examples, load_source
from tlkit.errors import InvalidInput

PHOTOS = [f"photos/{i}.png" for i in range(6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with six empty files: none is opened where it is listed."""
    (tmp_path / "photos").mkdir()
    for photo in PHOTOS:
        (tmp_path / photo).touch()
    return tmp_path


def read(root: Path, header: str, *cells: str, **settings: object) -> Examples:
    """List a table whose rows are the photos, each with other cells; "" stands for no photo."""
    rows = [f"{photo}{rest}" for photo, rest in zip(PHOTOS, cells, strict=False)]
    return table(root, "\n".join([header, *rows]), **settings)


def table(root: Path, text: str, name: str = "list.csv", **settings: object) -> Examples:
    (root / name).write_text(text, encoding="utf-8", newline="")
    return load_source("csv", path=root / name, **settings)  # type: ignore[arg-type]


CELLS = [",a,train", ",b,train", ",a,test", ",b,test"]
SPLITS = ["train", "train", "test", "test"]


@pytest.mark.parametrize(
    ("header", "notes"),
    [
        ("Path,Label,Split", []),
        ("PATH, LABEL, SPLIT", []),
        ("path,label,set", ["columns by their names: set is split"]),
        ("File Name,class,subset", ["columns by their names: File Name is path, class is label, subset is split"]),
        (
            "filepaths,labels,data set",
            ["columns by their names: filepaths is path, labels is label, data set is split"],
        ),
        ("fname,labels,set", ["columns by their names: fname is path, labels is label, set is split"]),
        ("image,target,fold", ["columns by their names: image is path, target is label, fold is split"]),
    ],
)
def test_columns_by_their_usual_names(root: Path, header: str, notes: list[str]):
    found = read(root, header, *CELLS)
    assert (found.classes, found.splits, found.notes) == (["a", "b"], SPLITS, notes)


def test_columns_that_are_given(root: Path):
    columns = {"path": "scan", "label": "diagnosis", "split": "Phase", "group": "patient"}
    cells = [f"{cell},p{i // 2}" for i, cell in enumerate(CELLS)]
    found = read(root, "scan,diagnosis,phase,patient", *cells, columns=columns)
    assert (found.splits, found.groups) == (SPLITS, ["p0", "p0", "p1", "p1"])
    assert found.notes == ["groups by column 'patient': 2; each stays in one split"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["list.csv", "list.tsv"])
def test_separators_between_cells(root: Path, delimiter: str, name: str):
    rows = ["\ufeffpath,label,set,note", *(f"{p}{c},x" for p, c in zip(PHOTOS, CELLS, strict=False))]
    text = "\r\n".join(rows).replace(",", delimiter)
    others = [sign for sign in ",;\t|" if sign != delimiter]
    found = table(root, text.replace("note", f'"a {others[0]} b{others[1]}"'), name)
    assert (found.classes, found.splits) == (["a", "b"], SPLITS)


def test_cells_are_divided_so_that_the_columns_are_there(root: Path):
    found = read(root, 'path,label,set,"a;b;c;d;e"', *(f'{cell},"1;2;3;4;5"' for cell in CELLS))
    assert (found.classes, found.splits) == (["a", "b"], SPLITS)


def test_a_semicolon_in_labels_separates_no_cells(root: Path):
    found = read(root, "path,labels", ",a;b", ",b", ",", separator=";")
    assert found.labels.tolist() == [[1, 1], [0, 1], [0, 0]]  # type: ignore[union-attr]
    assert (found.notes, dict(found.left_out)) == ([], {})


def test_a_wrong_separator_is_noted_with_the_right_one(root: Path):
    found = read(root, "path,labels", ",a|b", ",a|c", ",b", separator=";")
    advice = "if it separates several labels, give data.separator '|' in place of ';'"
    assert f"classes with | in their names (a|b, a|c): {advice}" in found.notes


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1", "0"), ("yes", "no"), ("1.0", "0.0")])
@pytest.mark.parametrize(("column", "split"), [("is_valid", "val"), ("is_test", "test")])
def test_a_column_of_true_and_false(root: Path, column: str, split: str, yes: str, no: str):
    found = read(root, f"path,label,{column}", f",a,{no}", f",b,{no}", f",a,{yes}")
    assert found.splits == ["train", "train", split]
    assert f"columns by their names: {column} is split" in found.notes


@pytest.mark.parametrize(
    ("header", "cells", "note"),
    [
        ("path,label,phase", CELLS, "column 'phase' is ignored although its values are splits: to use it give "
         "--data.columns '{split: phase}'"),
        ("path,label,fold", [",a,1", ",b,2"], "column 'fold' is ignored: its values are not train, training, val,"),
        ("path,label,valid", [",a,1", ",b,0"], "column 'valid' is ignored although its values are splits"),
        ("path,label,Usage", [",a,Training", ",b,PublicTest"], "column 'Usage' is ignored although its values are"),
        ("path,label,patient_id", [",a,1", ",b,2"],
         "column 'patient_id' is ignored: --data.columns '{group: patient_id}' keeps the examples of each in one"),
    ],
)  # fmt: skip
def test_ignored_columns_that_would_change_the_splits_are_named(root: Path, header: str, cells: list[str], note: str):
    found = read(root, header, *cells)
    assert (set(found.splits), len(found.notes)) == ({None}, 1)
    assert found.notes[0].startswith(note)


@pytest.mark.parametrize(
    ("header", "settings", "words"),
    [
        ("image,filename,label", {}, "each of the columns image, filename may be path: say which with --data.columns"),
        ("path,class,target", {}, "each of the columns class, target may be label"),
        (
            "path,label,set",
            {"columns": {"split": "phase"}},
            "data.columns says that split is 'phase', which is not one",
        ),
        ("path,label,Group,GROUP", {}, "2 columns 'group': keep one"),
        ("scan,label", {}, "no column 'path' among .*--data.columns '{path: NAME}'"),
        ("id,breed", {}, "no column 'path' among .*--data.columns '{path: NAME, label: NAME}'"),
    ],
)
def test_columns_that_are_not_clear(root: Path, header: str, settings: dict, words: str):
    with pytest.raises(InvalidInput, match=rf"list\.csv, line 1: {words}"):
        read(root, header, ",a,b,c", ",b,c,d", **settings)


def test_two_columns_of_splits_are_refused(root: Path):
    with pytest.raises(InvalidInput, match="each of the columns set, subset may be split"):
        read(root, "path,label,set,subset", ",a,train,train", ",b,test,val")


ROWS = [
    "path, label, split",
    "photos/0.png, a, train",
    "photos/1.png ,b,Training",
    "photos\\2.png,a,dev",
    "photos/none.png,a,train",
    ",a,train",
    "photos/3.png,b,holdout",
    "photos/4.png,,test",
    ",,",
    "photos/5.png,b,eval",
    ",,",
    "",
]


def test_rows_that_cannot_be_used_are_named_and_the_others_are_used(root: Path):
    found = table(root, "\r\n".join(ROWS))
    assert found.names == ["photos/0.png", "photos/1.png", "photos/2.png", "photos/5.png"]
    assert (found.splits, found.labels) == (["train", "train", "val", "test"], [0, 1, 0, 1])
    assert found.left_out == {
        "no such file": ["line 5: photos/none.png"],
        "no path": ["line 6: "],
        "no split": ["line 7: photos/3.png, split is 'holdout'"],
        "no label": ["line 8: photos/4.png"],
    }
    assert "rows left out: no such file (1 of 8): line 5: photos/none.png" in found.notes
    assert found.notes[-1] == "splits by their names: Training is train, dev is val, eval is test"


def test_strict_stops_at_the_first_row_that_cannot_be_used(root: Path):
    with pytest.raises(InvalidInput, match=r"line 5: no such photo: .*; without data\.strict the row would"):
        table(root, "\n".join(ROWS), strict=True)


def test_a_table_of_another_folder_is_an_error_with_the_cause(root: Path):
    rows = [f"elsewhere/{i}.png,{'ab'[i % 2]}" for i in range(9)] + ["photos/0.png,a", "photos/1.png,b"]
    with pytest.raises(InvalidInput, match=r"9 of 11 rows cannot be used \(line 2: no such photo: .*\): paths must be"):
        table(root, "\n".join(["path,label", *rows]))


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "None", "NA", "N/A", "null", "-1"])
def test_rows_without_a_label_are_left_out_and_counted(root: Path, missing: str):
    found = read(root, "path,label", ",0", ",1", f",{missing}", f",{missing}", f",{missing}", ",2")
    assert (found.classes, len(found.names)) == (["0", "1", "2"], 3)
    assert len(found.left_out["no label"]) == 3


def test_minus_one_is_a_class_beside_one_other_or_negative_ones(root: Path):
    assert read(root, "path,label", ",-1", ",1").classes == ["-1", "1"]
    assert read(root, "path,label", ",-1", ",0", ",-2").classes == ["-1", "-2", "0"]
    assert read(root, "path,label", ",none", ",scratch").classes == ["none", "scratch"]


def test_a_split_without_labels_is_left_out_and_that_is_said(root: Path):
    found = read(root, "path,label,split", ",a,train", ",b,train", ",,test", ",nan,test")
    assert set(found.splits) == {"train"}
    assert "no row of test can be used: the data have no such split" in found.notes


def test_labels_are_in_one_spelling_and_nearly_equal_ones_are_named(root: Path):
    labels = ["caf\u00e9", "cafe\u0301", "sea lion", "sea\u00a0\u00a0lion ", "Cat", "cat"]
    found = read(root, "path,label", *(f",{label}" for label in labels))
    assert found.classes == ["Cat", "café", "cat", "sea lion"]
    assert found.notes == [
        "classes with nearly equal names (1): Cat = cat; they stay apart: if they are one, give them one name"
    ]
    numbers = read(root, "path,label", ",1", ",1.0", ",01", ",2")
    assert "(1): 01 = 1 = 1.0; they stay apart" in numbers.notes[0]


def test_a_manifest_with_groups_is_read_back_to_the_same_splits(tmp_path: Path):
    for i in range(24):
        photo = tmp_path / ("NA" if i % 2 else "cafe\u0301  noir") / f"p{i // 4}_{i}.png"
        photo.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 10 * i).save(photo if i < 20 else photo.with_name(f"{i}.png"))
    found = load("folder", path=tmp_path, group=r"/(p\d)_", size=(8, 8))
    found.write_manifest(tmp_path / "manifest.csv")
    again = load("csv", path=tmp_path / "manifest.csv", size=(8, 8))
    assert (again.classes, again.digest) == (["NA", "café noir"], found.digest)
    assert sorted(set(again.train.given_groups or [])) == sorted(set(found.train.given_groups or []))
    assert "" in {row.group for row in again.manifest()}


def test_a_manifest_keeps_classes_that_look_like_no_label(root: Path):
    text = "hash,path,label,split\n" + "".join(
        f"00,{photo},{label},train\n"
        for photo, label in zip(PHOTOS, ["NA", "-1", "0", "1", "None", "nan"], strict=True)
    )
    assert table(root, text).classes == ["-1", "0", "1", "NA", "None", "nan"]


def test_groups_of_a_column_or_of_the_paths(root: Path):
    found = read(root, "path,label,Group", ",a,x", ",b,x", ",a,y", ",b,")
    assert found.groups == ["x", "x", "y", ""]
    assert found.notes[-1] == "photos without a group, which stand alone (1): photos/3.png"
    assert read(root, "path,label,group", ",a,", ",b,").groups is None
    found = read(root, "path,label,group", ",a,x", ",b,x", ",a,y", ",b,", group=r"([0-9])\.png")
    assert found.groups == ["0", "1", "2", "3"]


def test_a_parquet_table(root: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    columns = {
        "path": PHOTOS, "label": [0.0, 1.0, 2.0, None, 1.0, -1.0], "is_valid": [False, False, True, True, True, False],
        "vector": [[1.0]] * 6, "site": pyarrow.array(["x", None, "y", "y", "x", "x"]).dictionary_encode(),
    }  # fmt: skip
    parquet.write_table(pyarrow.table(columns), root / "list.parquet")
    found = load_source("csv", path=root / "list.parquet", columns={"group": "site"})
    assert (found.classes, found.labels) == (["0", "1", "2"], [0, 1, 2, 1])
    assert found.splits == ["train", "train", "val", "val"]
    assert found.groups == ["x", "", "y", "x"]
    assert found.left_out["no label"] == ["row 4: photos/3.png", "row 6: photos/5.png, label is '-1'"]


def test_parquet_tables_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (root / "words.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(InvalidInput, match=r"words\.parquet: not a Parquet table"):
        load_source("csv", path=root / "words.parquet")
    with pytest.raises(InvalidInput, match=r"none\.pq': .*"):
        load_source("csv", path=root / "none.pq")
    many = pyarrow.table({"path": pyarrow.repeat("photos/0.png", 10**6), "label": pyarrow.repeat("a", 10**6)})
    parquet.write_table(many, root / "many.parquet")
    monkeypatch.setattr("tlkit.untrusted.memory.available_memory", lambda: 10**8)
    with pytest.raises(InvalidInput, match=r"many\.parquet would take 1\.0 GB of memory"):
        load_source("csv", path=root / "many.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidInput, match="a Parquet table needs pyarrow: pip install pyarrow"):
        load_source("csv", path=root / "many.parquet")


def test_a_column_of_what_is_train(root: Path):
    found = read(root, "path,label,is_train", ",a,1", ",b,0", ",b,1")
    assert (found.splits, found.notes) == (["train", "test", "train"], ["columns by their names: is_train is split"])


def test_a_usual_column_of_splits_may_have_other_values_in_some_rows(root: Path):
    found = read(root, "path,label,set", *CELLS, ",a,extra")
    assert (found.splits, list(found.left_out)) == (SPLITS, ["no split"])
    assert set(read(root, "path,label,fold", ",a,train", ",b,1", ",a,2").splits) == {None}


def test_a_table_as_excel_writes_unicode_text(root: Path):
    rows = ["path\tlabel", "photos/0.png\tKäse", "photos/1.png\tWurst"]
    (root / "list.csv").write_bytes("\r\n".join(rows).encode("utf-16"))
    assert load_source("csv", path=root / "list.csv").classes == ["Käse", "Wurst"]
    (root / "list.csv").write_bytes("\r\n".join(rows).encode("cp1252"))
    with pytest.raises(InvalidInput, match=r"not a CSV file in UTF-8 .*: save it as CSV UTF-8"):
        load_source("csv", path=root / "list.csv")


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_quotation_mark_that_is_left_open_swallows_no_rows(root: Path, end: str):
    cells = [",a,x", ",b,x", ',a,"12 cm', ",b,x", ",a,x"]
    rows = "\n".join(["path,label,note", *(f"{p}{c}" for p, c in zip(PHOTOS, cells, strict=False))]) + end
    with pytest.raises(InvalidInput, match="line 4: a quotation mark is not closed"):
        table(root, rows)
    assert len(table(root, rows.replace('"12', '"two\nlines"')).names) == 5
    with pytest.raises(InvalidInput, match="line 2: a quotation mark is not closed"):
        table(root, rows.replace('"12', "12").replace("a,x", 'a,"x'))  # closed by that of the last row
    assert len(table(root, rows.replace('"12', '"a, b\nand\nc, d, e"')).names) == 5


@pytest.mark.parametrize("name", ["photos/0", "photos/0.PNG", "PHOTOS/0.png", "photos\\0", "photos/café/1", "."])
def test_paths_that_are_not_written_as_files_are_called(root: Path, name: str):
    (root / "photos" / unicodedata.normalize("NFD", "café")).mkdir()
    for other in (f"photos/{unicodedata.normalize('NFD', 'café')}/1.jpg", "photos/0.txt"):
        (root / other).touch()
    found = table(root, f"path,label\n{name},a\nphotos/1.png,b\nphotos/2.png,a\n")
    if name == ".":
        assert found.left_out == {"no such file": ["line 2: ."]}
        return
    assert found.contents[0].is_file()  # type: ignore[union-attr]
    assert unicodedata.normalize("NFC", found.names[0]) == ("photos/café/1.jpg" if "caf" in name else "photos/0.png")
    assert "paths that are not written as the files are called (1): " in found.notes[0]


def test_a_path_that_may_be_two_files_is_none(root: Path):
    (root / "photos" / "0.jpg").touch()
    with pytest.raises(InvalidInput, match="no such photo"):
        table(root, "path,label\nphotos/0,a\nphotos/1,b\n", strict=True)


@pytest.mark.parametrize("name", ["0", "/elsewhere/0.png", "C:\\photos\\0.png"])
def test_where_files_are_is_said(root: Path, name: str):
    with pytest.raises(InvalidInput, match=r"no such photo.*; there is 'photos/0\.png', seen from there"):
        table(root, f"path,label\n{name},a\n{name},b\n")


def test_groups_that_are_missing_are_none(root: Path):
    found = read(root, "path,label,group", ",a,nan", ",b,NA", ",a,x", ",b,x")
    assert found.groups == ["", "", "x", "x"]


def test_a_column_of_what_to_leave_out_in_other_letters(root: Path):
    assert len(read(root, "path,label,Leave_Out ", ",a,", ",b,", ",b,blank").names) == 2
    found = read(root, "path,label,split,leave_out,suspect,mine", ",None,train,,,", ",b,train,,,x", ",b,test,,,")
    assert found.classes == ["None", "b"]


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        ([",a", ",b", ',"a, c"'], "classes with , in their names (a, c): if it separates several labels, give"),
        ([",a", ",b", ",b;a"], "classes with ; in their names (b;a): if it separates several labels, give"),
        ([",cat", ",\u200bcat", ",c\u00adat"], "classes with nearly equal names (1): c\\xadat = cat; they stay apart"),
    ],
)
def test_labels_that_seem_to_be_others_are_named(root: Path, cells: list[str], note: str):
    assert read(root, "path,label", *cells).notes[0].startswith(note)
    assert read(root, "path,label", ',"Salem, Oregon"', ",b").notes == []


def test_splits_that_a_table_does_not_name_are(root: Path):
    for name in ("train/0.png", "test/0.png"):
        (root / name).parent.mkdir()
        (root / name).touch()
    found = table(root, "path,label\ntrain/0.png,a\ntest/0.png,b\n")
    assert found.notes == [
        "the folders of the 2 paths seem to be splits and are not used: for that give a column split"
    ]
    (root / "test.csv").touch()
    found = table(root, "path,label\nphotos/0.png,a\nphotos/1.png,b\n", "train.csv")
    assert found.notes[0].startswith("beside train.csv, not read: test.csv; ")


def test_numbers_that_are_no_classes_are_named(root: Path):
    rows = [f"photos/{i % 6}.png,{i / 7:.2f}" for i in range(20)]
    assert "20 classes for 20 examples: does" in table(root, "\n".join(["path,label", *rows])).notes[0]


def test_a_class_of_which_no_row_can_be_used_is_named(root: Path):
    found = table(root, "path,label\nphotos/0.png,a\nphotos/1.png,b\nnone.png,c\nno.png,b\n")
    assert found.notes[1] == "classes of which no row can be used (1): c"
