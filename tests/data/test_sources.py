"""Data sets: reading MLClsDataset folders, telling their faults, and the embedded digits."""

import numpy as np
import pytest

from mlcls_jax.config import Data
from mlcls_jax.data.sources import digits, load, open_data, open_split
from mlcls_jax.errors import MAX_FAULTS, ConfigError, DataError
from mlcls_jax.groups import Groups
from tests.helpers.photos import LABELS, row, write_image, write_lines, write_photos


@pytest.fixture
def root(tmp_path):
    return write_photos(tmp_path / "data")


def open_root(root, **options):
    return open_data(Data(dir=str(root), **options))


def fault_of(root, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        open_root(root, **options)
    return caught.value


def faults(root, **options) -> list[str]:
    """The message's lines, relative to the data set."""
    return fault_of(root, **options).message.replace(f"{root}/", "").splitlines()


def test_a_good_data_set(root):
    data = open_root(root)
    assert data.train.labels == data.validation.labels == LABELS
    assert (len(data.train), len(data.validation)) == (4, 2)
    image, target = load(data.train, 1)
    np.testing.assert_array_equal(image, write_image(root / "images/train_1.png", 1))
    np.testing.assert_array_equal(target, np.float32([0, 1, 0]))
    assert (image.dtype, target.dtype) == (np.uint8, np.float32)
    assert data.train.name(1) == f"{root}/images/train_1.png"


def test_a_data_set_nested_in_the_given_folder_is_found(tmp_path):
    root = write_photos(tmp_path / "a" / "b")
    (root / "images" / "images").mkdir()  # not another data set
    (tmp_path / "a" / "notes").mkdir()
    for folder in (root, tmp_path / "a", tmp_path):
        assert len(open_root(folder).train) == 4


def test_images_at_any_depth_with_any_name(root):
    names = ["images/deep/er/my cat (1).png", "images/猫.png", "images/Ünï,cödé.png"]
    pixels = [write_image(root / name, seed) for seed, name in enumerate(names)]
    write_lines(root / "train.txt", [f"{name}\t0,0,1" for name in names])
    data = open_root(root).train
    for (image, target), expected in zip((load(data, i) for i in range(3)), pixels, strict=True):
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(target, [0, 0, 1])


def test_label_names_may_hold_anything_and_come_in_any_order(root):
    write_lines(root / "label.txt", ["2 Vogel: groß, grün", "0 dining table", "1 犬\t(dog)"])
    assert open_root(root).train.labels == ("dining table", "犬\t(dog)", "Vogel: groß, grün")


def test_columns_of_the_label_file_close_the_targets(root):
    lines = ["0 pet", "2 dog\tparent=pet\t group=kind ", "1 house cat\tgroup=kind\tparent=pet"]
    write_lines(root / "label.txt", lines)
    write_lines(root / "train.txt", ["images/train_0.png\t-1,1,-1", "images/train_1.png\t0,1,-1"])
    train = open_root(root).train
    assert train.labels == ("pet", "house cat", "dog")
    assert train.groups == Groups((-1, 0, 0), (-1, 0, 0))
    np.testing.assert_array_equal(train.targets, [[1, 1, 0], [1, 1, 0]])
    assert train.contradicted == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_windows_files_read_like_others(root, end):
    expected = open_root(root)
    for name in ("label.txt", "train.txt", "val.txt"):
        lines = (root / name).read_text().splitlines()
        lines = ["\ufeff" + lines[0], "", *lines[1:], "   ", ""]
        write_lines(root / name, lines, end=end)
    data = open_root(root)
    assert data.train.labels == LABELS
    assert [data.train.name(i) for i in range(4)] == [expected.train.name(i) for i in range(4)]
    np.testing.assert_array_equal([data.train[i][1] for i in range(3)], np.eye(3))


def test_minus_one_says_that_a_label_is_not_annotated(root):
    write_lines(root / "train.txt", ["images/train_0.png\t1,-1,0"])
    target = open_root(root).train[0][1]
    np.testing.assert_array_equal(target, np.float32([1, -1, 0]))


def test_blanks_around_values_do_not_matter(root):
    write_lines(root / "train.txt", [" images/train_0.png \t 0, 1 ,0 \t"])
    np.testing.assert_array_equal(open_root(root).train[0][1], [0, 1, 0])


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["0 cat", "0 dog"], "label.txt:2: index 0 was given before"),
        (["0 cat", "1 cat"], "label.txt:2: the name 'cat' was given before"),
        (
            [f"0 {1001 * 'a'}"],
            f"label.txt:1: the name '{58 * 'a'}… has 1,001 characters, more than 1,000",
        ),
        (["0 cat", "2 dog"], "label.txt: indices must run from 0 without gaps; missing: 1"),
        (["1 cat"], "label.txt: indices must run from 0 without gaps; missing: 0"),
        (["0 cat", "cat"], "label.txt:2: 'cat' is not `<index> <name>`"),
        (["0 cat", "1"], "label.txt:2: '1' is not `<index> <name>`"),
        (["0 cat", "1 "], "label.txt:2: '1 ' is not `<index> <name>`"),
        (["-1 cat"], "label.txt:1: '-1 cat' is not `<index> <name>`"),
        (["", ""], "label.txt: is empty"),
        (["0 cat\tparent="], "label.txt:1: a column is there twice, or has no value"),
        (["0 cat\tgroup=a\tgroup=b"], "label.txt:1: a column is there twice, or has no value"),
        (["0 cat\tparent=pet"], "label.txt:1: the parent 'pet' is no label"),
        (
            ["0 cat\tparent=dog", "1 dog\tparent=cat"],
            "label.txt:1: ancestors of 'cat' do not end within 32 levels",
        ),
    ],
)
def test_faults_of_a_label_file(root, lines, told):
    write_lines(root / "label.txt", lines)
    assert faults(root) == [told]


def test_a_huge_index_is_told_at_once(root):
    write_lines(root / "label.txt", ["0 cat", "999999999999 dog"])
    (told,) = faults(root)
    assert told.endswith("missing: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("images/train_0.png\t0,1", "2 values, but there are 3 labels"),
        ("images/train_0.png\t0,1,0,", "4 values, but there are 3 labels"),
        ("images/train_0.png\t", "1 values, but there are 3 labels"),
        ("images/train_0.png\t0,1,2", "'2' in column 3 is neither 0, 1 nor -1"),
        ("images/train_0.png\t0,,1", "'' in column 2 is neither 0, 1 nor -1"),
        ("images/train_0.png\t0,1.0,0", "'1.0' in column 2 is neither 0, 1 nor -1"),
        (
            "images/train_0.png 0,1,0",
            "'images/train_0.png 0,1,0' is not `<image><TAB>0,1,0,…`: it has a space for the TAB",
        ),
        ("\t0,1,0", r"'\t0,1,0' is not `<image><TAB>0,1,0,…`"),
        ("images/nope.png\t0,1,0", "images/nope.png: there is no such image"),
        ("images\t0,1,0", "images: there is no such image"),
    ],
)
def test_faults_of_a_list_name_file_and_line(root, line, told):
    write_lines(root / "val.txt", ["images/val_0.png\t0,1,0", "", line])
    assert faults(root) == [f"val.txt:3: {told}"]


def test_faults_of_both_lists_are_told_together(root):
    write_lines(root / "train.txt", ["images/train_0.png\t0,1", "x"])
    write_lines(root / "val.txt", ["images/val_0.png\t0,1,0", "images/nope.png\t0,1,0"])
    assert [told.split(": ")[0] for told in faults(root)] == [
        "train.txt:1",
        "train.txt:2",
        "val.txt:2",
    ]


def test_many_faults_are_cut_and_counted(root):
    write_lines(root / "train.txt", [f"images/{i}.png\t0,1,0" for i in range(123)])
    told = faults(root)
    assert len(told) == MAX_FAULTS + 1
    assert told[0] == "train.txt:1: images/0.png: there is no such image"
    assert told[-1] == "… and 103 more faults"


@pytest.mark.parametrize("name", ["label.txt", "train.txt", "val.txt"])
def test_missing_empty_and_undecodable_files(root, name):
    (root / name).write_bytes(b"")
    assert faults(root) == [f"{name}: {'is empty' if name == 'label.txt' else 'lists no images'}"]
    (root / name).write_bytes(b"0 M\xfcller\n")
    assert faults(root)[0].startswith(f"{name}:1: is not UTF-8: ")
    assert fault_of(root).hint == "Save it as UTF-8."
    (root / name).unlink()
    assert faults(root) == [f"{name}: there is no such file"]
    (root / name).mkdir()
    assert faults(root) == [f"{name}: cannot be read: Is a directory"]


def test_other_file_names(root):
    for old, new in (("label.txt", "names.txt"), ("train.txt", "a.txt"), ("val.txt", "b.txt")):
        (root / old).rename(root / new)
    data = open_root(root, label_file="names.txt", train_list="a.txt", val_list="b.txt")
    assert (len(data.train), len(data.validation)) == (4, 2)


def test_folders_that_are_no_data_set(tmp_path):
    message = fault_of(tmp_path / "nope").message
    assert message == f"{tmp_path}/nope: there is no such folder"
    assert fault_of(tmp_path).message == f"{tmp_path}: holds no folder named images"
    for name in ("a", "b"):
        write_photos(tmp_path / name)
    message = fault_of(tmp_path).message
    assert message.startswith(f"{tmp_path}: several data sets in it: ")
    assert all(f"{tmp_path}/{name}" in message for name in ("a", "b"))


def test_an_unreadable_image_is_told_with_its_line_when_it_is_read(root):
    (root / "images/train_2.png").write_bytes(b"not an image")
    data = open_root(root)
    with pytest.raises(DataError) as caught:
        load(data.train, 2)
    assert caught.value.message.startswith(f"{root}/train.txt:3: {root}/images/train_2.png: ")
    load(data.train, 1)


def test_skip_leaves_missing_images_to_be_told_when_they_are_read(root):
    (root / "images/train_2.png").unlink()
    assert faults(root) == ["train.txt:3: images/train_2.png: there is no such image"]
    data = open_root(root, on_error="skip")
    assert len(data.train) == 4
    with pytest.raises(DataError, match="train.txt:3: .*train_2.png: there is no such file"):
        data.train[2]


def test_skip_does_not_forgive_malformed_lists(root):
    write_lines(root / "train.txt", [f"images/train_0.png\t{row(0, 5)}"])
    assert faults(root, on_error="skip") == ["train.txt:1: 5 values, but there are 3 labels"]


def test_an_unknown_kind_of_data_set_proposes_the_nearest():
    with pytest.raises(ConfigError, match="data.source=digit: .* did you mean digits"):
        open_data(Data(source="digit"))
    with pytest.raises(ConfigError, match="there are digits, mlcls"):
        open_data(Data(source="xyz"))


@pytest.fixture(scope="module")
def boards():
    return open_data(Data(source="digits", val_size=300))


def test_boards_depend_on_their_number_only(boards):
    again = open_data(Data(source="digits", val_size=20))
    for ours, theirs in zip(boards, again, strict=True):
        for index in (7, 0, 19, 7):
            image, target = ours[index]
            np.testing.assert_array_equal(image, theirs[index][0])
            np.testing.assert_array_equal(target, theirs[index][1])
    assert not np.array_equal(boards.train[3][0], boards.validation[3][0])
    assert not np.array_equal(boards.train[3][0], boards.train[4][0])


def test_boards_are_small_colour_pictures_of_one_to_four_digits(boards):
    assert boards.train.labels == boards.validation.labels == tuple("0123456789")
    assert (len(boards.train), len(boards.validation)) == (digits.TRAIN_BOARDS, 300)
    for split in boards:
        targets = np.stack([split[i][1] for i in range(300)])
        assert set(targets.ravel()) == {0, 1}
        assert targets.sum(1).min() >= 1 and targets.sum(1).max() <= 4
        assert targets.any(0).all()  # every class occurs
        image, target = split[0]
        assert (image.shape, image.dtype, target.dtype) == ((64, 64, 3), np.uint8, np.float32)
        assert image.std() > 10
        assert split.name(12) == "board_000012"
    last, _ = boards.train[len(boards.train) - 1]
    assert last.shape == (64, 64, 3)


def test_training_and_validation_boards_share_no_digit(boards):
    size = digits.DIGIT_SIZES[0]
    train, validation = ({digit.tobytes() for digit in split._digits[size]} for split in boards)
    assert len(train) > 1400 and len(validation) > 350
    assert not train & validation


@pytest.mark.parametrize("digit", range(10))
def test_the_labels_of_a_board_are_the_digits_drawn_on_it(digit):
    ink = np.zeros((10, 8, 8))
    ink[digit] = 1.0  # the others are drawn without ink
    boards = digits.DigitBoards(ink, np.arange(10), length=50, salt=5)
    for image, target in (boards[i] for i in range(len(boards))):
        assert (np.ptp(image, axis=(0, 1)).max() > 50) == target[digit]


def test_validation_needs_no_training_list(root):
    (root / "train.txt").unlink()
    assert len(open_split(Data(dir=str(root)), "validation")) == 2
    with pytest.raises(DataError, match=r"train.txt: there is no such file"):
        open_root(root)
