"""Where the cells of a feature map lie, and which of them are matches of which."""

from __future__ import annotations

import torch

from r2d2_kapture.training.d2net_loss import (
    corresponding_cells,
    enlarged,
    hardest_negatives,
)
from tests.training.d2net_maps import HEIGHT, PIXELS, WIDTH, flow_of_shift


def test_maps_are_enlarged_to_where_their_cells_lie() -> None:
    rows, columns = torch.meshgrid(
        torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij"
    )
    places = torch.stack([4 * columns + 1.5, 4 * rows + 1.5]).double()
    found = enlarged(places, PIXELS)
    expected = flow_of_shift(0, 0)[0]
    expected[0].clamp_(1.5, 4 * WIDTH - 2.5)
    expected[1].clamp_(1.5, 4 * HEIGHT - 2.5)
    torch.testing.assert_close(found, expected)


def test_cells_move_by_whole_cells_and_to_the_nearest() -> None:
    cells1, cells2 = corresponding_cells(
        flow_of_shift(9.0, -4.0)[0].float(), (HEIGHT, WIDTH)
    )
    rows1, columns1 = cells1 // WIDTH, cells1 % WIDTH
    rows2, columns2 = cells2 // WIDTH, cells2 % WIDTH
    # 9 pixels are 2 cells and a quarter
    assert torch.equal(columns2, columns1 + 2) and torch.equal(rows2, rows1 - 1)
    assert len(cells1) == (WIDTH - 2) * (HEIGHT - 1)
    assert len(set(cells1.tolist())) == len(cells1)


def test_a_cell_is_not_the_pixel_nearest_to_it() -> None:
    """A shift of 5.8 pixels is 1.45 cells, 1 to the nearest; counted from the pixel,
    which lies half a pixel further, it would be 2."""
    cells1, cells2 = corresponding_cells(flow_of_shift(5.8, 0)[0], (HEIGHT, WIDTH))
    assert torch.equal(cells2, cells1 + 1)
    assert len(cells1) == (WIDTH - 1) * HEIGHT


def test_cells_shrink_with_the_image() -> None:
    """Where image 2 is image 1 at half size, borders aligned: x2 = x1 / 2 - 1 / 4."""
    flow = (flow_of_shift(0, 0)[0] + 0.5) / 2 - 0.5
    cells1, cells2 = corresponding_cells(flow, (HEIGHT, WIDTH))
    assert len(cells1) == HEIGHT * WIDTH
    for one, other in zip(cells1.tolist(), cells2.tolist()):
        for axis in (one // WIDTH, other // WIDTH), (one % WIDTH, other % WIDTH):
            pixel = (4 * axis[0] + 1.5 + 0.5) / 2 - 0.5
            # the flow at the nearest pixel stands for that of the cell: 1/4 px, off
            assert abs(pixel - (4 * axis[1] + 1.5)) <= 2.25


def test_unknown_positions_have_no_cell() -> None:
    flow = flow_of_shift(0, 0)[0]
    flow[:, :16] = torch.nan
    flow[:, :, 30:] = 1e6
    cells1, cells2 = corresponding_cells(flow, (HEIGHT, WIDTH))
    assert torch.equal(cells1, cells2)
    assert set((cells1 // WIDTH).tolist()) == set(range(4, HEIGHT))
    assert set((cells1 % WIDTH).tolist()) == set(range(7))


def test_the_hardest_wrong_match_lies_outside_the_safe_square() -> None:
    descriptors = torch.eye(25, 25)
    anchor = torch.zeros(1, 25)
    # most like the true cell 12 (2, 2), then a neighbour, then (0, 2), then (4, 4)
    anchor[0, [12, 13, 2, 24]] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    true = torch.tensor([12])
    for radius, expected in ((0, 13), (1, 2), (2, -1)):
        found = hardest_negatives(anchor, descriptors, true, (5, 5), radius)
        assert found.tolist() == [expected]
