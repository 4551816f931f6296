"""Tables as people have them: read as they are meant, or refused in a line that says what to do."""

import json
import shutil
from pathlib import Path

import pytest

from tests.test_own import AB, aside, files, laid_out, layout
from transfer import params
from transfer.cli import UserError
from transfer.images import archive, split

EIGHT = files("images", count=8)


def table(*rows: str, header: str = "file,label") -> str:
    return "".join(f"{row}\n" for row in (header, *rows))


def rows(line: str = "{n}.jpg,{label}", labels=AB, count: int = 8) -> list[str]:
    return [line.format(n=n, label=labels[n % len(labels)]) for n in range(count)]


def beside(folder: Path, text: str | bytes, *more: str, name: str = "labels.csv") -> Path:
    laid_out(folder, *EIGHT, *more)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def labels(folder: Path, **asked) -> dict[str, str]:
    """image → label, as the stage split reads what own writes."""
    found = layout(folder, **asked)
    where = params.Table.model_validate(found.folders)
    with archive.opened(folder) as source:
        members, _ = split.files_of_classes(source, where)
    assert len(members) == sum(sum(part.values()) for part in found.images.values())
    return {member.path: member.label for member in members}


def refused(folder: Path, **asked) -> str:
    with pytest.raises(UserError) as caught:
        layout(folder, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


RIGHT = {f"images/{n}.jpg": AB[n % 2] for n in range(8)}

READ = {
    "plain": table(*rows()),
    "tabs": table(*rows("{n}.jpg\t{label}"), header="file\tlabel"),
    "semicolons": table(*rows("{n}.jpg;{label}"), header="file;label"),
    "bars": table(*rows("{n}.jpg|{label}"), header="file|label"),
    "a mark of Excel": "sep=;\n" + table(*rows("{n}.jpg;{label}"), header="file;label"),
    "a comment": "# by me\n" + table(*rows()),
    "CR": table(*rows()).replace("\n", "\r"),
    "CR LF": table(*rows()).replace("\n", "\r\n"),
    "BOM": "\ufeff" + table(*rows()),
    "UTF-16": table(*rows()).encode("utf-16"),
    "blank lines": table(*rows()).replace("\n", "\n\n"),
    "empty lines": table(*rows(), ",", ","),
    "an index": table(*rows("{n},{n}.jpg,{label}"), header="id,file,label"),
    "an index that counts otherwise": table(
        *[f"{7 - n},{n}.jpg,{AB[n % 2]}" for n in range(8)], header="id,file,label"
    ),
    "an index of pandas": table(*rows("{n},{n}.jpg,{label}"), header=",file,label"),
    "names of rows, as R has them": table(*rows('"{n}","{n}.jpg","{label}"'), header="file,label"),
    "a comma at the end": table(*rows("{n}.jpg,{label},"), header="file,label"),
    "a comma at every end": table(*rows("{n}.jpg,{label},"), header="file,label,"),
    "quotes within": table(
        *rows('{n}.jpg,"a ""nice"", clean shot",{label}'), header="file,note,label"
    ),
    "spaces": table(*rows("{n}.jpg , {label} "), header="file, label"),
    "no endings": table(*rows("{n},{label}")),
    "another ending": table(*rows("{n}.PNG,{label}")),
    "paths of another computer": table(*rows("/home/me/set/images/{n}.jpg,{label}")),
    "paths of Windows": table(*rows("C:\\set\\{n}.jpg,{label}")),
    "addresses": table(*rows("https://example.org/a/{n}.jpg?w=640,{label}")),
    "one hot": table(
        *[f"{n}.jpg,{n % 2 == 0:d},{n % 2:d}" for n in range(8)], header="filename, ants, bees"
    ),
    "one hot with points": table(
        *[f"{n},{n % 2 == 0:d}.0,{n % 2:d}.0,0.0" for n in range(8)], header="image,ants,bees,UNK"
    ),
    "a number and a name": table(
        *[f"{n}.jpg,{n % 2},{AB[n % 2]}" for n in range(8)], header="file,label,class_name"
    ),
    "no header": "".join(f"{row}\n" for row in rows()),
}


@pytest.mark.parametrize("case", READ)
def test_a_table_is_read_as_it_is_meant(tmp_path, case):
    assert labels(beside(tmp_path, READ[case])) == RIGHT


def test_a_list_of_paths_and_json_lines_are_tables(tmp_path):
    listed = "".join(f"images/{n}.jpg {AB[n % 2]}\n" for n in range(8))
    assert labels(beside(tmp_path / "x", listed, name="train.txt")) == RIGHT
    lines = [json.dumps({"file_name": f"{n}.jpg", "label": AB[n % 2]}) for n in range(8)]
    assert labels(beside(tmp_path / "y", "\n".join(lines), name="images/metadata.jsonl")) == RIGHT


@pytest.mark.parametrize("odd", ["/abs/out", "../../x", ".", "n/a", "1/2", "001", "1e3", "NONE"])
def test_any_text_is_a_label(tmp_path, odd):
    found = labels(beside(tmp_path, table(*rows(labels=(odd, "bees")))))
    assert set(found.values()) == {odd, "bees"}


def test_an_index_is_not_taken_for_the_file(tmp_path):
    """Though every number is the name of an image."""
    turned = [f"{n},{7 - n}.jpg,{AB[n % 2]}" for n in range(8)]
    beside(tmp_path, table(*turned, header="id,file,label"))
    assert labels(tmp_path) == {f"images/{7 - n}.jpg": AB[n % 2] for n in range(8)}
    assert layout(tmp_path).notes[0] == "labels.csv: file from 'file', label from 'label'"


def test_two_columns_that_name_different_images_are_asked_for(tmp_path):
    two = [f"{n}.jpg,{7 - n}.jpg,{AB[n % 2]}" for n in range(8)]
    beside(tmp_path, table(*two, header="left,right,label"))
    assert "'left' and 'right' both name images" in refused(tmp_path)
    assert labels(tmp_path, file="left") == RIGHT


def test_of_several_tables_the_one_with_classes_for_most_images_is_taken(tmp_path):
    laid_out(tmp_path, *files("train", count=8), *files("test", count=20))
    (tmp_path / "train.csv").write_text(table(*rows("{n},{label}"), header="id_code,diagnosis"))
    (tmp_path / "test.csv").write_text(table(*map(str, range(20)), header="id_code"))
    dummy = table(*[f"{n},{n % 2}" for n in range(20)], header="id_code,diagnosis")
    (tmp_path / "sample_submission.csv").write_text(dummy)
    found = layout(tmp_path)
    assert found.images == {"all": {"ants": 4, "bees": 4}}
    assert found.notes[0] == "train.csv: file from 'id_code', label from 'diagnosis'"
    assert "test: 20 files (20 .jpg): images without a label" in aside(found)
    assert set(labels(tmp_path)) == {f"train/{n}.jpg" for n in range(8)}
    chosen = layout(tmp_path, table="sample_submission.csv")
    assert chosen.folders["table"] == "sample_submission.csv"
    assert "it has no table 'x.csv'; it has 'sample_submission.csv'" in refused(
        tmp_path, table="x.csv"
    )


@pytest.mark.parametrize(
    ("column", "yes"), [("is_train", "True"), ("is_test", "1"), ("train", "yes")]
)
def test_a_column_that_says_whether_an_image_is_for_training_is_the_part(tmp_path, column, yes):
    no = {"True": "False", "1": "0", "yes": "no"}[yes]
    lines = [f"{n}.jpg,{AB[n % 2]},{yes if n < 6 else no}" for n in range(8)]
    found = layout(beside(tmp_path, table(*lines, header=f"file,label,{column}")))
    first = "test" if column == "is_test" else "train"
    assert {part: sum(counts.values()) for part, counts in found.images.items()}[first] == 6


@pytest.mark.parametrize("kind", ["folder", "zip", "gztar"])
def test_an_empty_folder_is_told(tmp_path, kind):
    source = tmp_path / "set"
    (source / "c").mkdir(parents=True)
    laid_out(source, "a/0.png", "b/0.png")
    if kind != "folder":
        source = shutil.make_archive(str(tmp_path / "packed"), kind, source)
    with archive.opened(source) as opened:
        assert opened.note == "empty folders, of which no class is made: 'c'"


def test_a_column_called_valid_need_not_be_the_part(tmp_path):
    lines = [f"{n}.jpg,{AB[n % 2]},{n % 3 > 0:d}" for n in range(8)]
    found = layout(beside(tmp_path, table(*lines, header="file,label,valid")))
    assert list(found.images) == ["all"]


@pytest.mark.parametrize("form", ["metadata", "one hot", "beside"])
def test_tables_of_the_parts_are_joined(tmp_path, form):
    laid_out(tmp_path, *files("train", count=8), *files("test", count=4))
    for part, count in {"train": 8, "test": 4}.items():
        path = tmp_path / {
            "metadata": f"{part}/metadata.csv",
            "one hot": f"{part}/_classes.csv",
        }.get(form, f"{part}.csv")
        text = table(*rows(count=count), header="file_name,label")
        if form == "one hot":
            ones = [f"{n}.jpg,{n % 2 == 0:d},{n % 2:d}" for n in range(count)]
            text = table(*ones, header="filename, ants, bees")
        path.write_text(text)
    found = layout(tmp_path)
    assert found.images == {"train": {"ants": 4, "bees": 4}, "test": {"ants": 2, "bees": 2}}
    assert found.aside == []
    assert labels(tmp_path)["test/1.jpg"] == "bees"
    where = params.Table.model_validate(found.folders)
    assert where.divided and set(where.tables) == {"train", "test"}


def test_several_labels_of_an_image_are_refused_with_their_lines(tmp_path):
    ones = [f"{n}.jpg,{n % 2 == 0:d},{n % 2:d}" for n in range(7)]
    beside(tmp_path / "x", table(*ones, "7.jpg,1,1", header="file,ants,bees"))
    said = refused(tmp_path / "x")
    assert "several labels in line 9 ('ants and bees'); an image can have one" in said
    for number, cell in enumerate(
        ['"ants,bees"', "ants bees", "bees|ants", "\"['ants', 'bees']\""]
    ):
        beside(tmp_path / str(number), table(*rows(), f"3.jpg,{cell}", f"4.jpg,{cell}"))
        assert "several labels in line 10, 11" in refused(tmp_path / str(number))


def test_missing_labels_are_counted_and_equal_numbers_are_one_class(tmp_path):
    found = [f"{n}.jpg,{label}" for n, label in enumerate(["0", "0.0", "1", "1.0", "", "NaN", "0"])]
    beside(tmp_path, table(*found))
    assert layout(tmp_path).images == {"all": {"0": 3, "1": 2}}
    assert "lines without a label: 2 (line 6: '4.jpg', line 7: '5.jpg')" in layout(tmp_path).notes
    assert set(labels(tmp_path).values()) == {"0", "1"}


def test_a_table_in_another_encoding_is_refused_by_its_name(tmp_path):
    text = table(*rows(labels=("Bär", "Bör", "Esel")))
    beside(tmp_path, text.encode("cp1252"))
    said = refused(tmp_path)
    assert "labels.csv line 2 is not in UTF-8 (in Windows' cp1252 it is '0.jpg,Bär')" in said


def test_columns_called_part_and_group_are_taken_only_if_they_are(tmp_path):
    text = [f"{n}.jpg,{AB[n % 2]},{'arm' if n < 4 else 'leg'},{n // 4}" for n in range(8)]
    beside(tmp_path, table(*text, header="file,label,part,group"))
    found = layout(tmp_path)
    assert (found.images, found.groups) == ({"all": {"ants": 4, "bees": 4}}, 0)
    assert found.notes[2].startswith("'part' is not taken for the part")
    assert found.notes[3].startswith("'group' is not taken for groups: it has 2 values")


def test_no_split_and_no_group_turn_a_column_off(tmp_path):
    text = [f"{n}.jpg,{AB[n % 2]},{'train' if n < 6 else 'test'},p{n}" for n in range(8)]
    beside(tmp_path, table(*text, header="file,label,split,patient"))
    found = layout(tmp_path)
    assert (list(found.images), found.groups) == (["train", "test"], 8)
    found = layout(tmp_path, no_split=True, no_group=True)
    assert (list(found.images), found.groups) == (["all"], 0)


def test_a_column_of_which_all_values_name_parts_is_taken_for_the_part(tmp_path):
    text = [f"{n}.jpg,{AB[n % 2]},{'training' if n < 6 else 'eval'}" for n in range(8)]
    beside(tmp_path, table(*text, header="file,label,phase"))
    assert list(layout(tmp_path).images) == ["train", "test"]


def test_columns_with_several_labels_of_most_images_are_named(tmp_path):
    ones = [f"{n}.jpg,1,{n % 2},{n // 4}" for n in range(8)]
    beside(tmp_path, table(*ones, header="file,a,b,c"))
    (tmp_path / "labels.csv").write_text(
        table(*[f"{n}.jpg,{n % 2},{n // 4}" for n in range(8)], header="file,b,c")
    )
    assert "'b', 'c' say 0 or 1, and many images have several 1 or none" in refused(tmp_path)


def test_a_table_that_could_not_be_read_is_told_where_no_folder_is_a_class(tmp_path):
    beside(tmp_path / "x", "My insects\n" + table(*rows()))
    assert "labels.csv line 2 has 2 cells, and the one above 1; remove what" in refused(
        tmp_path / "x"
    )
    laid_out(tmp_path / "y", *(f"images/{n:05}.jpg" for n in range(8)))
    (tmp_path / "y/labels.csv").write_text(table(*rows("{n}.jpg,{label}")))
    said = refused(tmp_path / "y")
    assert "'0.jpg', which names no image; an image here is 'images/00000.jpg'" in said


def test_names_that_match_no_image_are_shown_beside_an_image(tmp_path):
    beside(tmp_path, table(*rows("a/x{n}.jpg,{label}")))
    assert "'a/x0.jpg', which names no image; an image here is 'images/0.jpg'" in refused(
        tmp_path, table="labels.csv"
    )


def test_two_names_of_one_image_are_refused(tmp_path):
    beside(tmp_path, table(*rows("a/{n}.jpg,{label}"), "b/0.jpg,ants"))
    assert "line 10: 'b/0.jpg' and 'a/0.jpg' above both would be 'images/0.jpg'" in refused(
        tmp_path
    )


def test_names_are_compared_in_one_form_of_unicode(tmp_path):
    laid_out(tmp_path, *files("images", count=4), "images/e\u0301.jpg", "images/a\u0308.jpg")
    text = table(*rows(count=4), "\u00e9.jpg,ants", "\u00e4.jpg,bees")
    (tmp_path / "labels.csv").write_text(text)
    assert labels(tmp_path)["images/\u00e9.jpg"] == "ants"


def test_folders_that_only_divide_many_files_are_no_classes(tmp_path):
    names = files("x_images_part_1", "x_images_part_2", count=4)
    laid_out(tmp_path, *names)
    listed = [f"{name},{AB[n % 2]}" for n, name in enumerate(names)]
    (tmp_path / "metadata.csv").write_text(table(*listed, header="image_id,dx"))
    assert set(labels(tmp_path).values()) == set(AB)
    names = files("one", "two", count=4)
    laid_out(tmp_path / "y", *names)
    listed = [f"{name},{AB[n % 2]}" for n, name in enumerate(names)]
    (tmp_path / "y/metadata.csv").write_text(table(*listed, header="image_id,dx"))
    said = refused(tmp_path / "y")
    assert "may be its folders (one, two: --classes outer) or those of metadata.csv" in said
    assert labels(tmp_path / "y", table="metadata.csv")["one/0.jpg"] == "ants"
    assert list(layout(tmp_path / "y", "outer").folders["all"]) == ["one", "two"]


def test_a_table_that_says_what_the_folders_say_is_named(tmp_path):
    names = files(*AB, count=4)
    laid_out(tmp_path, *names)
    listed = [f"{name},{name.split('/')[0]}" for name in names]
    (tmp_path / "labels.csv").write_text(table(*listed))
    found = layout(tmp_path)
    assert list(found.folders["all"]) == list(AB)
    assert found.notes == [
        "labels.csv was not read, since the folders are classes; --table reads it"
    ]


def test_masks_that_are_called_as_the_images_are_not_taken_for_them(tmp_path):
    """Even in the table's own folder, as in Oxford's pets."""
    names = [f"annotations/trimaps/{n}.png" for n in range(8)]
    text = "".join(f"{n} {AB[n % 2]}\n" for n in range(8))
    assert labels(beside(tmp_path, text, *names, name="annotations/list.txt")) == RIGHT


def test_a_ragged_line_is_named(tmp_path):
    beside(tmp_path, table(*rows(), "7.jpg,ants,bees,wasps"))
    assert "Expected 2 fields in line 10, saw 4" in refused(tmp_path, table="labels.csv")


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path):
    laid_out(tmp_path, *EIGHT, "labels.xlsx")
    assert "save labels.xlsx as CSV" in refused(tmp_path)
