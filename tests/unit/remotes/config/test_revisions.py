"""What a file's content is beside the head: the whole table."""

import pytest

from remotes.config.revisions import Revision, Standing, judge

HEAD = Revision(3, "head", "text")


@pytest.mark.parametrize(
    ("sha256", "head", "is_known", "published", "standing"),
    [
        ("any", None, False, None, Standing.HAND_EDIT),
        ("head", HEAD, True, None, Standing.IN_STEP),
        ("before", HEAD, True, "before", Standing.BEHIND),
        ("before", HEAD, True, None, Standing.BEHIND),
        ("before", HEAD, True, "head", Standing.HAND_EDIT),
        ("older", HEAD, True, "head", Standing.STALE),
        ("older", HEAD, True, "older", Standing.STALE),
        ("new", HEAD, False, "head", Standing.HAND_EDIT),
        ("new", HEAD, False, None, Standing.HAND_EDIT),
    ],
)
def test_a_file_is_judged_by_what_is_known_of_its_content(sha256, head, is_known, published, standing):
    assert judge(sha256, head=head, predecessor="before", is_known=is_known, published=published) is standing
