"""The tracer on a few lines of plain torch: bytes, roles, FLOPs and live memory."""

import pytest
import torch

from ocr_flops.measure.worker.cuda_attention import CudaAttention
from ocr_flops.measure.worker.tracer import Tracer, bytes_of, follow_modules, sum_events


def traced(work, *held, weights=(), cache=()):
    """The events of work(*held), with held tensors alive from the start."""
    tracer = Tracer(weights, lambda path, name, order: path or "top", lambda: cache)
    tracer.hold(held)
    tracer.hold_cache(cache)
    with torch.no_grad(), tracer:
        work(*held)
    return tracer.events


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_bytes_of_expanded_tensors_are_those_in_memory():
    x = meta(5, 1, 7)
    assert bytes_of(x) == 70
    assert bytes_of(x.expand(5, 9, 7)) == 70
    assert bytes_of(x.expand(3, 5, 9, 7)) == 70
    assert bytes_of(meta(5, 8, 7)[:, :3]) == 5 * 3 * 7 * 2  # a slice: what it shows


def test_a_linear_layer():
    weight = meta(6, 4)
    (event,) = traced(lambda x: torch.nn.functional.linear(x, weight), meta(3, 4), weights=[weight])
    assert (event.name, event.tensor_flops, event.vector_flops) == ("mm", 2 * 3 * 4 * 6, 0)
    assert (event.weight_io_bytes, event.activation_io_bytes, event.kv_io_bytes) == (48, 24 + 36, 0)
    assert event.live_bytes == 24 + 36


def test_views_are_not_operators():
    assert traced(lambda x: x.view(12).unsqueeze(0).expand(3, 12)[:, :4].transpose(0, 1), meta(3, 4)) == []


def test_a_view_that_must_copy_is():
    (event,) = traced(lambda x: x.transpose(0, 1).reshape(12), meta(3, 4))
    assert (event.name, event.vector_flops, event.activation_io_bytes) == ("clone", 0, 48)


def test_broadcast_inputs_are_read_once():
    (event,) = traced(lambda x, y: x + y, meta(8, 5), meta(1, 5))
    assert (event.vector_flops, event.activation_io_bytes) == (40, 80 + 10 + 80)


@pytest.mark.parametrize(
    ("work", "vector_flops"),
    [
        (lambda x: torch.softmax(x, -1), 5 * 40),
        (torch.sigmoid, 4 * 40),
        (torch.nn.functional.silu, 4 * 40),
        (torch.nn.functional.gelu, 5 * 40),
        (lambda x: torch.nn.functional.layer_norm(x, (5,)), 8 * 40),
        (lambda x: x.mean(-1), 40),
        (torch.rsqrt, 40),
        (lambda x: x.float(), 0),
    ],
)
def test_vector_flops(work, vector_flops):
    assert sum(event.vector_flops for event in traced(work, meta(8, 5))) == vector_flops


def test_an_embedding_reads_the_rows_it_gathers():
    table, index = meta(1000, 4), torch.zeros(3, dtype=torch.int64, device="meta")
    (event,) = traced(lambda index: torch.nn.functional.embedding(index, table), index, weights=[table])
    assert (event.weight_io_bytes, event.activation_io_bytes) == (3 * 4 * 2, 24 + 24)


def test_in_place_work_makes_no_memory():
    events = traced(lambda x: x.mul_(2), meta(8, 5))
    assert [event.live_bytes for event in events] == [80]
    assert events[0].activation_io_bytes == 160


def test_live_memory_peaks_while_a_temporary_lives():
    def work(x):
        wide = x.float()
        narrow = wide.to(torch.bfloat16)
        del wide
        return narrow + 1

    events = traced(work, meta(8, 5))
    assert [event.live_bytes for event in events] == [80 + 160, 80 + 160 + 80, 80 + 80 + 80]


def test_views_keep_their_storage_alive():
    def work(x):
        part = (x + 1)[:1]
        y = part + 1
        return part, y

    assert [event.live_bytes for event in traced(work, meta(8, 5))] == [160, 170]


def test_cache_is_apart_from_activations():
    old = meta(2, 3)
    cache = [old]

    def work(fresh):
        tracer.in_cache_update = True
        cache[0] = torch.cat([cache[0], fresh])
        tracer.in_cache_update = False

    tracer = Tracer([], lambda *_: "top", lambda: cache)
    fresh = meta(1, 3)
    tracer.hold([fresh])
    tracer.hold_cache([old])
    with torch.no_grad(), tracer:
        work(fresh)
    (event,) = tracer.events
    assert (event.kv_io_bytes, event.activation_io_bytes) == (12 + 18, 6)
    assert event.live_bytes == 6 + 18  # not yet cache: transient until the cache has taken it
    assert tracer.live_bytes() == 6 + 12  # `old` outlives its place in the cache here


def test_creation_writes_only():
    (event,) = traced(lambda x: torch.zeros_like(x), meta(8, 5))
    assert (event.activation_io_bytes, event.vector_flops) == (80, 0)


def test_modules_by_path_and_sums_by_module():
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(4, 6, bias=False, dtype=torch.bfloat16, device="meta")

        def forward(self, x):
            return self.inner(x) + 1

    block = Block()
    paths = [""]
    tracer = Tracer(block.parameters(), lambda path, name, order: f"{path}:{name}:{order}", paths=paths)
    with torch.no_grad(), follow_modules(block, paths), tracer:
        block(meta(3, 4))
        block(meta(3, 4))
    table = {}
    sum_events(tracer.events, "module", table)
    assert list(table) == ["inner:mm:0", ":add:0", "inner:mm:1", ":add:1"]
    assert table["inner:mm:1"]["tensor_flops"] == 144
    assert all(row["operators"] == 1 for row in table.values())


def attention(*arguments, **options):
    with CudaAttention():
        return torch.nn.functional.scaled_dot_product_attention(*arguments, **options)


def heads(dtype=torch.bfloat16):
    return meta(2, 3, 5, 8, dtype=dtype)


def test_attention_without_a_mask_is_the_flash_kernel():
    (event,) = traced(lambda q: attention(q, q, q, is_causal=True), heads())
    assert event.name == "_scaled_dot_product_flash_attention"
    assert (event.tensor_flops, event.vector_flops) == (4 * 2 * 3 * 25 * 8, 6 * 2 * 3 * 25)  # dense, also where causal
    assert event.activation_io_bytes >= 4 * 480


def test_attention_in_fp32_is_the_memory_efficient_kernel():
    (event,) = traced(lambda q: attention(q, q, q), heads(torch.float32))
    assert (event.name, event.tensor_flops) == ("_scaled_dot_product_efficient_attention", 4 * 2 * 3 * 25 * 8)


@pytest.mark.parametrize(("keys", "padded"), [(8, False), (5, True), (12, True), (16, False)])
def test_a_bias_is_padded_to_rows_of_eight(keys, padded):
    bias = meta(2, 3, 5, keys)
    events = traced(lambda q, k: attention(q, k, k, attn_mask=bias), heads(), meta(2, 3, keys, 8))
    names = [event.name for event in events]
    assert names == (["constant_pad_nd"] if padded else []) + ["_scaled_dot_product_efficient_attention"]
    if padded:
        whole = keys + 8 - keys % 8
        assert events[0].activation_io_bytes == 2 * 30 * (keys + whole)
    assert events[-1].vector_flops == 7 * 30 * keys
