"""Learns a class: traces at chosen sizes, coefficients of every operator's costs, and their check at sizes that were not used."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
import torch._meta_registrations as registered
import transformers
from torch._decomp import global_decomposition_table

from ocr_flops.cost.learning.dimensions import monomials_of, with_parts
from ocr_flops.cost.learning.folding import COLUMNS, Launch, Trace, Unlearnable
from ocr_flops.cost.learning.program_file import SCHEMA, LearnedExperts, LearnedProgram, LearnedStage, write_program
from ocr_flops.cost.learning.solving import independent_rows
from ocr_flops.cost.learning.stage_learning import Names, StageKey, learn_stage
from ocr_flops.cost.polynomial import Monomial, product
from ocr_flops.measure.events import Event, Learned, Progress, Traced
from ocr_flops.measure.worker.class_doors import FEATURES, doors_of_views
from ocr_flops.measure.worker.class_session import KERNELS, ClassSession
from ocr_flops.measure.worker.transformers_engine import config_fields

POOL = 400  # points to choose from
OUTPUTS = (1, 2, 3, 5, 8, 12, 130)  # written by a model with a window
WINDOWED = monomials_of([(), ("context",), ("tokens",), ("padded_context",)], [(), ("uneven_context",)])
MASKED = monomials_of([(), ("tokens",), ("tokens", "tokens"), ("padded_tokens", "tokens")], [(), ("uneven_tokens",)])
TABLES = ("meta", "post_autograd", "pre_autograd")  # of torch's kernels in Python, those that come first count
CHECKS = 3  # points beside those that are needed, where there are any
Say = Callable[[str], None]


def learn_class(
    architecture: str,
    config: dict[str, Any],
    kernels: Sequence[str] = KERNELS,
    say: Say = lambda text: None,
    views: Sequence[Sequence[int]] = (),
) -> LearnedProgram:
    """The program of a class at some dimensions, in bf16, with each of the attention kernels that it has and that can be learned.

    Args:
        architecture: the class, of transformers.
        config: where its config differs from the class's defaults.
        kernels: "eager", "sdpa".
        say: told what is done.
        views: other views of DeepSeek-OCR's class, as of `doors_of_views`.

    Raises:
        Unlearnable: no kernel can, see `learn_stage`.
    """
    texts, stages, sessions, left_out = Names(), [], [], {}
    for kernel in kernels:
        try:
            session, learned = ClassSession(architecture, config, kernel), []
            if views:
                session.door = doors_of_views(views)
            with session.running():
                for key in stage_keys(session, kernel):
                    say(str(key))
                    learned.append(_learn(session, key, texts))
                cache = session.cached_bytes(2, 7) // 14
        except Unlearnable as problem:
            left_out[kernel] = str(problem)
            say(f"{kernel} is left out: {problem}")
            continue
        stages += learned
        sessions.append(session)
    if not sessions:
        raise Unlearnable("; ".join(dict.fromkeys(left_out.values())))
    session = sessions[0]
    counts: Counter[tuple[int, int]] = Counter()
    for name, parameter in session.model.named_parameters():
        module, _, layer = session.labels.place(name.rpartition(".")[0]).partition("/")
        counts[texts.place(module), int(layer or -1)] += parameter.numel()
    parameters = [(*place, count) for place, count in counts.items()]
    left_out = {kernel: why.partition(" (")[0] for kernel, why in left_out.items()}  # without the numbers at points
    versions = transformers.__version__, str(torch.__version__)
    return LearnedProgram(
        *(SCHEMA, architecture, *versions, config, "bf16"),
        *(list(texts), session.parts, parameters, cache, experts_of(session), stages, session.window, left_out),
    )


def experts_of(session: ClassSession) -> LearnedExperts | None:
    """The routed experts of the decoder."""
    text = session.config.get_text_config()
    count = next((getattr(text, name) for name in ("n_routed_experts", "num_experts") if getattr(text, name, None)), None)
    if count is None:
        return None
    layers = sum(name.endswith("mlp.experts") for name, _ in session.model.named_modules())
    return LearnedExperts(count, text.num_experts_per_tok, layers, text.hidden_size * text.moe_intermediate_size * 2)


def stage_keys(session: ClassSession, kernel: str) -> list[StageKey]:
    """All stages that a program has."""
    pages = session.door.pages(session.config)
    return [
        StageKey(stage, kernel, is_one, variant)
        for is_one in (True, False)
        for stage in ("vision", "prefill", "call", "decode")
        for variant in (pages if stage in ("vision", "call") else [()])
    ]


def _learn(session: ClassSession, key: StageKey, texts: Names) -> LearnedStage:
    """A stage, with few monomials or, where these do not suffice, with more."""
    traces: dict[tuple, Trace] = {}
    experts = experts_of(session)
    for tier in (0, 1):
        monomials, points = choose_points(session, key, tier)
        for point in points:
            if point not in traces:
                batch, sizes, tokens = point
                traces[point] = session.trace(key.stage, batch, dict(sizes), tokens)
        try:
            return learn_stage(key, list(traces.values()), monomials, texts, experts.third * experts.experts if experts else 0)
        except Unlearnable as problem:
            if tier or "sequence" in str(problem):
                raise Unlearnable(f"{key.stage}, {key.attention}: {problem}") from None
    raise AssertionError


def choose_points(session: ClassSession, key: StageKey, tier: int) -> tuple[list[Monomial], list[tuple]]:
    """Monomials of a stage that points can tell apart, and as many points as that takes and some more: (batch, sizes, tokens)."""
    pages = session.door.pages(session.config)
    any_page = [page for one in pages.values() for page in one]
    variants = any_page if key.stage in ("prefill", "decode") else pages[key.variant]
    text = monomials_of([(), ("batch",)], MASKED if session.window else [(), ("tokens",), ("tokens", "tokens")])
    terms = session.door.terms[tier]
    uneven = [("uneven", "batch", "tokens")] if "uneven" in session.parts else []  # what is alive beside what some sizes lack
    monomials = {
        "vision": terms,
        "prefill": [*text, *session.door.features],
        "call": [*text, *terms, *session.door.features, *uneven],
        "decode": monomials_of([(), ("batch",)], WINDOWED if session.window else [(), ("context",)]),
    }[key.stage]
    if session.window and key.stage in ("prefill", "call"):  # the same of a mask that some lengths pad
        monomials += [("uneven_tokens", *one) for one in (*session.door.features, *(terms if key.stage == "call" else []))]
    if key.is_one:
        monomials = [tuple(name for name in monomial if name != "batch") for monomial in monomials]
    monomials = list(dict.fromkeys(tuple(sorted(monomial)) for monomial in monomials))
    chance = random.Random(7)
    pool: list[tuple] = []
    for number in range(POOL):
        batch = 1 if key.is_one else chance.choice((2, 3, 4, 5) if number > 20 else (2, 3))
        page = {"outputs": chance.choice(OUTPUTS)} if session.window else {}
        page = page if key.stage == "decode" else chance.choice(variants)
        tokens = 0 if key.stage == "vision" else chance.randint(2, 90) if key.stage != "decode" else chance.randint(5, 400)
        pool.append((batch, tuple(page.items()), tokens))
    pool = list(dict.fromkeys(pool))
    known = [_guessed(session, key, point) for point in pool]
    rows = [[product(sizes[name] for name in one) for one in monomials] for sizes in known]
    columns = independent_rows(list(zip(*rows, strict=True)), len(monomials))
    rows = [[row[column] for column in columns] for row in rows]
    chosen = independent_rows(rows, len(columns))
    more = [number for number in range(len(pool)) if number not in chosen][:CHECKS]
    return [monomials[column] for column in columns], [pool[number] for number in (*chosen, *more)]


def _guessed(session: ClassSession, key: StageKey, point: tuple) -> dict[str, int]:
    """The sizes of a point, as far as they are known before it is traced: of tokens those beside the features, which do as well."""
    batch, sizes, tokens = point
    if key.stage == "decode":
        return session.decode_point(batch, tokens, dict(sizes).get("outputs", 1))
    found = {"batch": batch, **dict(sizes)}
    if key.stage != "vision":
        found["tokens"] = session.count_features(batch, dict(sizes)) + tokens if session.window else 7 * tokens
    found = with_parts(found, session.parts)
    if key.stage in ("prefill", "call") and any(FEATURES in monomial for monomial in session.door.features):
        found[FEATURES] = session.count_features(batch, dict(sizes))
    return found


def trace_points(architecture: str, config: dict[str, Any], points: Iterable[dict[str, Any]]) -> Iterator[Traced]:
    """Traces a class afresh, by module.

    Args:
        architecture, config: as of `learn_class`.
        points: {"stage", "attention", "batch", "sizes", "context"} each, as of `ClassSession.trace`, but with all tokens of a sequence.
    """
    for kernel, same in groupby(points, lambda point: point["attention"]):
        session = ClassSession(architecture, config, kernel)
        with session.running():
            for point in same:
                stage, batch, sizes, tokens = (point[name] for name in ("stage", "batch", "sizes", "context"))
                tokens -= session.count_features(batch, sizes) if stage in ("prefill", "call") else 0
                trace = session.trace(stage, batch, sizes, tokens)
                yield Traced(point, sum_launches(trace.launches))


def sum_launches(launches: Iterable[Launch]) -> dict[str, dict[str, int]]:
    """The rows of modules: columns add up, and of live bytes the peak is kept."""
    table: dict[str, dict[str, int]] = {}
    for launch in launches:
        module = launch.place.partition("/")[0]
        row = table.setdefault(module, dict.fromkeys((*COLUMNS[:-1], "operators", "peak_activation_bytes"), 0))
        for column, number in zip(COLUMNS[:-1], launch.numbers, strict=False):
            row[column] += number
        row["operators"] += 1
        row["peak_activation_bytes"] = max(row["peak_activation_bytes"], launch.numbers[-1])
    return table


def serve_lesson(lesson: dict[str, Any], send: Callable[[Event], None], is_alone: bool = False) -> None:
    """Serves a request of kind "learn"; arguments as of `measure.__main__.serve`."""
    said = 0

    def say(text: str) -> None:
        nonlocal said
        send(Progress(said, 0, text))
        said += 1

    config = lesson["config"]
    if "towers" in config:  # DeepSeek-OCR's own, as a request of another kind has them
        config = config_fields(config["towers"])
    of = lesson["architecture"], config
    if lesson.get("points") is None:
        if is_alone:
            use_native_kernels()
        send(Learned(write_program(learn_class(*of, lesson["kernels"], say, lesson.get("views", ())))))
        return
    for traced in trace_points(*of, lesson["points"]):
        say(f"{traced.point['stage']}, {traced.point['attention']}")
        send(traced)


def use_native_kernels() -> None:
    """For the rest of this process, torch's kernels in Python for `meta` run only for operators of which ATen has none: traces take half as
    long.

    Shapes, strides and storages are the same: programs learned so are checked against traces without. Where torch has no such library of
    kernels any more, nothing changes.
    """
    library = getattr(registered, "_meta_lib_dont_use_me_use_register_meta", None)
    if library is None:
        return
    library._destroy()
    rest = torch.library.Library("aten", "IMPL", "Meta")
    registered._meta_lib_dont_use_me_use_register_meta = rest  # lives as long as the one before
    kernels = {}
    for table in reversed(TABLES):
        kernels |= global_decomposition_table[table]
    for operator, kernel in kernels.items():
        if not isinstance(operator, torch._ops.OpOverload) or operator.namespace != "aten" or operator.is_view:
            continue
        if not any(torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key) for key in ("CompositeImplicitAutograd", "Meta")):
            rest.impl(operator, kernel)
