"""ShardedTable and selection on several processes: the scores and ids of one process."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gloo import on_ranks
from torch.utils.data import DistributedSampler

from dualfast import DualLoss, PrunedSampler, Scores, ScoreTable, select
from dualfast.scoring.sharded import ShardedTable, load_parts
from dualfast.selection import beta
from dualfast.selection.sharded import select as select_sharded

N, CLASSES, EPOCHS, BATCH = 211, 5, 14, 16
EXACT = ("visits", "forgetting", "dual", "dyn_unc", "mean", "last_mean", "aum", "late_margin", "top_other")
HALF = 2.0**-11
TRACKED: dict[str, Any] = {"window": 4, "epochs": 12, "track_loss": True, "track_aum_prob": True}
TRACKED |= {"track_late_margin": True, "track_top_other": True}
METHODS = ("dual+beta", "random", "dual", "forgetting", "aum", "mean")


def logits_of(ids: torch.Tensor, epoch: int) -> torch.Tensor:
    """The logits of samples, a function of (id, epoch) alone."""
    rows = [torch.randn(CLASSES, generator=torch.Generator().manual_seed(epoch * N + i)) for i in ids.tolist()]
    return 2 * torch.stack(rows) if rows else torch.empty(0, CLASSES)


def visit(table: ScoreTable, ids: torch.Tensor, epoch: int) -> None:
    """One visit of `ids` in batches; every seventh is ignored, and one epoch of sample 3 is not finite."""
    criterion = DualLoss(table)
    for part in ids.split(BATCH):
        logits = logits_of(part, epoch)
        if epoch == 2:
            logits[part == 3] = float("nan")
        criterion(logits.requires_grad_(), torch.where(part % 7 == 6, -100, part % CLASSES), part).backward()


def on_one_process(n: int = N) -> ScoreTable:
    table = ScoreTable(n, **TRACKED)
    for epoch in range(EPOCHS):
        visit(table, torch.arange(n), epoch)
    return table


def same(scores: Scores, expected: Scores, half: bool) -> None:
    for name in (*EXACT, "el2n", "entropy"):
        mine, theirs = getattr(scores, name), getattr(expected, name)
        if half and name not in EXACT:
            np.testing.assert_allclose(mine, theirs, rtol=HALF, atol=2.0**-24, err_msg=name)
        else:
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
    np.testing.assert_allclose(scores.loss, expected.loss, rtol=1e-6, atol=2.0**-22)
    np.testing.assert_allclose(scores.aum_prob, expected.aum_prob, rtol=0, atol=1e-6 if half else 0)


def score_and_select() -> dict[str, Any]:
    rank, size = dist.get_rank(), dist.get_world_size()
    warnings.simplefilter("ignore")  # the visit that is not finite, which scores() notes
    expected = on_one_process()
    one = expected.scores()

    # Any sampler, its padding left out; the middle of an epoch saved and restored.
    table = ShardedTable(N, **TRACKED)
    assert table.lines.nbytes == 64 * len(range(rank, N, size))
    sampler: DistributedSampler[int] = DistributedSampler(range(N), shuffle=True, seed=1)  # type: ignore[arg-type]
    sent = []
    all_to_all = dist.all_to_all_single

    def counting(taken: torch.Tensor, given: torch.Tensor, *splits: Any, **options: Any) -> Any:
        sent.append(given.nbytes)
        return all_to_all(taken, given, *splits, **options)

    dist.all_to_all_single = counting
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        ids = torch.tensor(list(sampler))
        visit(table, ids[:20], epoch)
        if epoch == 5:
            saved = io.BytesIO()
            torch.save(table.state_dict(), saved)
            table = ShardedTable(N, **TRACKED)
            table.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
        visit(table, ids[20:], epoch)
        sent.clear()
        table.exchange()
        assert sum(sent) <= 20 * len(sampler) + 8 * size, sent
    dist.all_to_all_single = all_to_all
    same(table.scores(), one, half=True)
    on_last = table.scores_on(size - 1)
    assert (on_last is None) == (rank != size - 1)

    # Ranks that visit what they own: every bit.
    own = ShardedTable(N, **TRACKED, reads="own")
    mine = PrunedSampler(own.owned, seed=3)
    for epoch in range(EPOCHS):
        mine.set_epoch(epoch)
        visit(own, torch.tensor(list(mine)), epoch)
    same(own.scores(), one, half=False)
    torch.testing.assert_close(own.lines, expected.lines[rank::size], rtol=0, atol=0)
    np.testing.assert_array_equal(own.local_scores().loss, one.loss[rank::size])  # type: ignore[index]
    np.testing.assert_array_equal(own.local_scores().aum_prob, one.aum_prob[rank::size])  # type: ignore[index]
    if size > 1:
        with pytest.raises(ValueError, match=f"sample {(rank + 1) % size}, whose line lives on rank"):
            visit(own, torch.tensor([(rank + 1) % size]), 0)

    # A sample that every rank saw: the first rank's visit counts.
    table = ShardedTable(N, window=2)
    DualLoss(table).observe(torch.tensor([[float(rank), 0.0]]), torch.tensor([0]), torch.tensor([5]))
    twice = table.scores()
    assert twice.visits is not None
    assert twice.visits.sum() == 1
    assert twice.mean[5] == 0.5

    with pytest.raises(ValueError, match=rf"index\[1\] is {N}"):
        visit(table, torch.tensor([0, N]), 0)
    with pytest.raises(ValueError, match=f"n_samples is {size - 1} and there are {size} ranks"):
        ShardedTable(size - 1)

    # Selection without gathering. Samples that are always ignored have no score: they are left out of both.
    full = Scores(**{name: np.nan_to_num(getattr(one, name), nan=0.5) for name in (*EXACT, "el2n", "entropy")})
    part = Scores(**{name: getattr(full, name)[rank::size] for name in EXACT})
    for method in METHODS:
        for ratio in (0.0, 0.3, 0.9, 0.999):
            kept = select_sharded(part, ratio, method=method, seed=7)
            np.testing.assert_array_equal(kept, select(full, ratio, method=method, seed=7), err_msg=f"{method} {ratio}")
    rng = np.random.default_rng(0)
    mean = rng.beta(4, 2, N).astype(np.float32)
    drawn = Scores(dual=mean * (1 - mean) * rng.random(N, np.float32), mean=mean)
    mine_of = Scores(dual=drawn.dual[rank::size], mean=mean[rank::size])
    for most in (N // 2, beta.MOST):  # expectations over some, and over all samples
        beta.MOST = most
        np.testing.assert_array_equal(select_sharded(mine_of, 0.7, c_d="auto"), select(drawn, 0.7, c_d="auto"))
    assert beta.auto_c_d(drawn, 0.7) != 4
    broken = Scores(dual=np.where(np.arange(len(part)) == 1, np.nan if rank == 0 else 1.0, part.dual), mean=part.mean)
    with pytest.raises(ValueError, match=f"dual\\[{size}\\] is nan" if rank == 0 else "another rank"):
        select_sharded(broken, 0.5, c_d="auto")
    with pytest.raises(ValueError, match="ccs"):
        select_sharded(part, 0.5, method="ccs")
    return {"scores": table.scores().visits}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_scores_and_selection_are_those_of_one_process(size: int, tmp_path: Path) -> None:
    on_ranks(size, score_and_select, tmp_path)


def lose_much() -> None:
    """A true class so unlikely that its probability has no float32 of its own; one process's state on one process."""
    logits = torch.tensor([[0.0, 200.0, 0.0], [0.0, 95.0, 0.0], [1.0, 2.0, 3.0], [0.0, 86.9, 0.0]])
    table, whole = (
        ShardedTable(4, window=2, track_loss=True, track_aum_prob=True),
        ScoreTable(4, window=2, track_loss=True, track_aum_prob=True, tdds=3),
    )
    for _ in range(3):
        for one in (table, whole):
            DualLoss(one).observe(logits, torch.zeros(4, dtype=torch.int64), torch.arange(4))
        table.exchange()
    np.testing.assert_allclose(table.scores().loss, whole.scores().loss, rtol=1e-6)
    moved = ScoreTable(4, window=2, track_loss=True, track_aum_prob=True, tdds=3)
    load_parts(moved, [whole.state_dict()])
    np.testing.assert_array_equal(moved.scores().tdds, whole.scores().tdds)
    few = Scores(dual=np.array([0.1, 0, 0, 0]), mean=np.full(4, 0.5))
    with pytest.warns(UserWarning, match="only 1 of 4 samples have a positive weight; 1 more"):
        assert len(select_sharded(few, 0.5)) == 2
    with pytest.raises(ValueError, match="keep is 'mid'"):
        select_sharded(few, 0.5, method="dual", keep="mid")
    with pytest.raises(ValueError, match=r"mean\[0\] is 2"):
        select_sharded(Scores(dual=few.dual, mean=few.mean + 1.5), 0.5)
    with pytest.raises(ValueError, match="0 samples"):
        select_sharded(Scores(dual=np.empty(0), mean=np.empty(0)), 0.5)


def test_on_one_rank_all_is_as_without(tmp_path: Path) -> None:
    on_ranks(1, lose_much, tmp_path)


CHAIN = (4, 2, 3, 1, 4)


def move_from_ranks_to_ranks(folder: Path) -> None:
    """A training that resumes in the middle of every third epoch, each time on another number of ranks."""
    warnings.simplefilter("ignore")
    me, expected = dist.get_rank(), on_one_process()
    groups = {size: dist.new_group(range(size)) for size in (2, 3, 4)}
    for stage, size in enumerate(CHAIN):
        dist.barrier()
        if me >= size:
            continue
        table = ScoreTable(N, **TRACKED) if size == 1 else ShardedTable(N, group=groups[size], **TRACKED)
        if stage:
            before = CHAIN[stage - 1]
            paths = [folder / f"{stage - 1}-{rank}" for rank in range(before) if rank * size // before == me]
            load_parts(table, [torch.load(path, weights_only=True) for path in paths])
        last = stage + 1 == len(CHAIN)
        for epoch in range(3 * stage, EPOCHS if last else 3 * stage + 4):
            order = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))
            first, second = order[:100], order[100:]
            if epoch > 3 * stage or not stage:  # the other half of what the ranks before have begun
                visit(table, first[me::size], epoch)
            if epoch < 3 * stage + 3 or last:
                visit(table, second[me::size], epoch)
                table.exchange()
        torch.save(table.state_dict(), folder / f"{stage}-{me}")
    same(table.scores(), expected.scores(), half=True)

    # States of 0.1 have neither aum_prob nor top_other, and 16 bytes for each visit that waits.
    parts = [torch.load(folder / f"1-{rank}", weights_only=True) for rank in range(2)]
    for old in parts:
        del old["prob_margin_sums"], old["late_margin_sums"], old["votes"]
        old["pending_values"] = old["pending_values"][:, :3]
    early = ScoreTable(N, **TRACKED)
    load_parts(early, parts)
    assert early.scores().aum_prob is early.scores().late_margin is early.scores().top_other is None
    assert early.scores().loss is not None

    # What cannot be put together is refused.
    part = torch.load(folder / "1-0", weights_only=True)
    for wrong, message in (
        (part | {"n_samples": N + 1}, f"n_samples {N + 1}, this table {N}"),
        (part | {"window": 5}, "window 5, this table 4"),
        (part | {"loss_sums": None}, "track_loss"),
        (part | {"prob_margin_sums": None}, "track_aum_prob"),
        (part | {"late_margin_sums": None}, "track_late_margin"),
        (part | {"votes": None}, "track_top_other"),
    ):
        with pytest.raises(ValueError, match=message):
            load_parts(ScoreTable(N, **TRACKED), [wrong])
    with pytest.raises(ValueError, match="105 samples are in none of the states"):
        load_parts(ScoreTable(N, **TRACKED), [part])
    with pytest.raises(ValueError, match=r"world_size 2, this table 4; load_parts\(\) takes"):
        ShardedTable(N, **TRACKED).load_state_dict(part)
    with pytest.raises(ValueError, match=r"tdds is 5.*ScoreTable\(tdds=\.\.\.\)"):
        ShardedTable(N, tdds=5)


def test_a_table_resumes_on_any_number_of_ranks(tmp_path: Path) -> None:
    on_ranks(4, move_from_ranks_to_ranks, tmp_path, tmp_path)


def forget_the_exchange() -> list[str]:
    table = ShardedTable(N, window=2)
    for epoch in range(4):
        visit(table, torch.arange(N)[dist.get_rank() :: dist.get_world_size()], epoch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table.scores()
    return [str(warning.message) for warning in caught]


def test_a_forgotten_exchange_warns(tmp_path: Path) -> None:
    said = on_ranks(2, forget_the_exchange, tmp_path)
    assert any("call table.exchange() at the end of every epoch" in line for line in said[1])


def test_without_a_process_group_the_way_out_is_named() -> None:
    with pytest.raises(ValueError, match="use ScoreTable"):
        ShardedTable(10)


def load_waiting_of_0_1() -> None:
    """A state of 0.1 in which visits without by-products wait for an exchange, their margin written as 0."""
    table = ShardedTable(4, window=2)
    state = table.state_dict()
    values = torch.zeros(4, 3, dtype=torch.int32)
    values[:, 0] = torch.full((4,), -0.5).view(torch.int32)
    table.load_state_dict(state | {"by_products": False, "pending_ids": torch.arange(4), "pending_values": values})
    scores = table.scores()
    assert scores.visits.tolist() == [1] * 4
    assert (scores.aum, scores.el2n, scores.entropy) == (None, None, None)


def test_visits_of_0_1_that_wait_without_by_products_stay_so(tmp_path: Path) -> None:
    on_ranks(1, load_waiting_of_0_1, tmp_path)
