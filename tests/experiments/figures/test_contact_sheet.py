from __future__ import annotations

import numpy as np

from htfcli.config.images import IsSameClassConfig
from htfcli.engine.vision.datasets.is_same_class import make_is_same_class
from htfcli.experiments.figures.contact_sheet import contact_sheet

SETTINGS = {"source": "shapes", "train": 33, "test": 2, "height": 100, "width": 80, "distance": 4}


def test_the_first_images_under_their_labels():
    data = make_is_same_class(IsSameClassConfig(**SETTINGS))
    figure = contact_sheet(data)
    assert figure.get_suptitle() == "is-same-class, shapes, distance 4, 100 x 80 pixels"
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 32
    assert [axes.get_title() for axes in shown] == [data.classes[int(label)] for label in data.train.labels[:32]]
    pictures = [np.asarray(axes.images[0].get_array()) for axes in shown]
    assert pictures[0].shape[0] < 100  # without most of the empty rows
    assert all(0 <= picture.min() <= picture.max() <= 1 for picture in pictures)


def test_fewer_images_leave_places_empty():
    figure = contact_sheet(make_is_same_class(IsSameClassConfig(**{**SETTINGS, "train": 5})))
    assert sum(bool(axes.images) for axes in figure.axes) == 5
