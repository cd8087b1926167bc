"""Inside a trained network, on its training images."""

from pathlib import Path

from conftest import Refused


def test_layers_of_a_network_of_folders_are_measured_on_a_dataset(
    trained_on_images: Path, refused: Refused
) -> None:
    assert "was trained on a folder of images" in refused("analyze", "responses", trained_on_images)
