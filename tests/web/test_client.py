"""How a gallery behind a service is printed."""

from __future__ import annotations

from reidkit.web.client import RemoteGallery, _Service


def test_a_remote_gallery_says_where_it_is_and_no_password():
    service = _Service("http://ann:secret@host:8000/", "reid_token", 1.0)
    assert repr(RemoteGallery(service, "people")) == "<gallery 'people' of http://ann@host:8000>"
