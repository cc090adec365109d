"""DualLoss where training happens: autocast, GradScaler, accumulation, several processes, torch.compile, epochs that
are not whole."""

from __future__ import annotations

import importlib
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dualfast import DualLoss, ScoreTable, dual_loss, ops, reference

step_module = importlib.import_module("dualfast.ops.step")  # dualfast.ops.step itself is the function

FEATURES, CLASSES = 12, 10
EVERYTHING = {"track_loss": True, "track_aum_prob": True, "track_late_margin": True, "track_top_other": True}


def batch(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs (rows, FEATURES), targets, index."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, FEATURES, generator=draw)
    return inputs, torch.randint(0, CLASSES, (rows,), generator=draw), torch.randperm(rows, generator=draw)


def layer() -> torch.nn.Linear:
    torch.manual_seed(5)
    return torch.nn.Linear(FEATURES, CLASSES)


def grad_of(model: torch.nn.Module) -> torch.Tensor:
    grads = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None for grad in grads)
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def recorded(table: ScoreTable) -> list[int]:
    return (table.lines[:, -1] & 0xFFF).tolist()


# ---- mixed precision, accumulation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_grad_scaler_train_as_with_cross_entropy(dtype: torch.dtype) -> None:
    """The same updates as torch's loss under the same autocast, to the rounding of the half-precision gradients."""
    inputs, targets, index = batch(64)
    table = ScoreTable(64, window=2)
    criterion = DualLoss(table)
    ends = []
    for ours in (True, False):
        model = layer()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        for _ in range(4):
            with torch.autocast("cpu", dtype=dtype):
                out = model(inputs)
                loss = criterion(out, targets, index) if ours else cross_entropy(out, targets)
            assert out.dtype == dtype
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    start = torch.cat([p.detach().flatten() for p in layer().parameters()])
    moved = (ends[1] - start).abs().max()
    assert moved > 0.1
    assert (ends[0] - ends[1]).abs().max() < 8 * torch.finfo(dtype).eps * moved
    assert recorded(table) == [4] * 64


def test_a_grad_scaler_sees_an_overflow() -> None:
    inputs, targets, index = batch(8)
    model = layer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    before = model.weight.detach().clone()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = DualLoss(ScoreTable(8))(model(inputs), targets, index)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(model.weight, before)
    assert scaler.get_scale() == 2.0**29


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    inputs, targets, index = batch(48)
    model, whole = layer(), layer()
    criterion = DualLoss(ScoreTable(48))
    for part in torch.arange(48).chunk(4):
        (criterion(model(inputs[part]), targets[part], index[part]) / 4).backward()
    cross_entropy(whole(inputs), targets).backward()
    torch.testing.assert_close(grad_of(model), grad_of(whole), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("inplace", [False, True])
def test_per_row_gradients_reach_the_layers_below(inplace: bool) -> None:
    inputs, targets, index = batch(20)
    upstream = torch.linspace(-1, 2, 20)
    mine, theirs = torch.nn.Sequential(torch.nn.Tanh(), layer()), torch.nn.Sequential(torch.nn.Tanh(), layer())
    dual_loss(mine(inputs), targets, index, ScoreTable(20), reduction="none", inplace=inplace).backward(upstream)
    cross_entropy(theirs(inputs), targets, reduction="none").backward(upstream)
    torch.testing.assert_close(grad_of(mine), grad_of(theirs), rtol=1e-5, atol=1e-7)


# ---- in place, by-products ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_inplace_gradients_lie_over_the_logits_and_the_scores_are_the_same(backend: str) -> None:
    tables = [ScoreTable(20, window=2), ScoreTable(20, window=2)]
    for seed in range(3):
        grads = []
        for table, inplace in zip(tables, (False, True), strict=True):
            inputs, targets, index = batch(20, seed)
            logits = layer()(inputs).detach().requires_grad_()
            dual_loss(logits, targets, index, table, backend=backend, inplace=inplace).backward()
            assert logits.grad is not None
            assert torch.equal(logits, logits.grad) == inplace
            grads.append(logits.grad)
        assert torch.equal(*grads)
    assert torch.equal(tables[0].lines, tables[1].lines)


@pytest.mark.parametrize("how", ["cpp", "torch", "traced"])
@pytest.mark.parametrize("shape", ["one row for all", "rows that overlap", "one column for all"])
def test_inplace_leaves_logits_alone_whose_rows_share_memory(how: str, shape: str) -> None:
    _, targets, index = batch(20)
    strides = {"one row for all": (0, 1), "rows that overlap": (3, 1), "one column for all": (1, 0)}[shape]
    memory = torch.randn(3 * 20 + CLASSES, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ends = []
    for inplace in (False, True):
        table = ScoreTable(20, window=2)

        def step(memory: torch.Tensor, table: ScoreTable = table, inplace: bool = inplace) -> torch.Tensor:
            logits = (memory * 2).as_strided((20, CLASSES), strides)
            backend = "auto" if how == "traced" else how
            return dual_loss(logits, targets, index, table, backend=backend, inplace=inplace)

        run = torch.compile(step, fullgraph=True, backend="aot_eager") if how == "traced" else step
        loss = run(memory)
        ends.append((loss.detach(), *torch.autograd.grad(loss, memory), table.lines))
    for plain, ours in zip(*ends, strict=True):
        assert torch.equal(plain, ours)


def test_inplace_is_noticed_by_who_needs_the_logits() -> None:
    inputs, targets, index = batch(6)
    logits = layer()(inputs).tanh()  # whose own backward reads what it gave
    loss = dual_loss(logits, targets, index, ScoreTable(6), inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_without_by_products_their_scores_are_none(backend: str) -> None:
    tracked = {"track_aum_prob": True, "track_late_margin": True, "track_top_other": True}
    lean, full = (ScoreTable(20, window=2, **tracked) for _ in range(2))
    for seed in range(3):
        inputs, targets, index = batch(20, seed)
        for table in (lean, full):
            dual_loss(layer()(inputs), targets, index, table, backend=backend, by_products=table is full)
    found, want = lean.scores(), full.scores()
    assert found.aum is found.aum_prob is found.late_margin is found.el2n is found.entropy is None
    np.testing.assert_allclose(found.dual, want.dual, rtol=1e-6)
    np.testing.assert_array_equal(found.top_other, want.top_other)
    again = ScoreTable(20, window=2, **tracked)
    again.load_state_dict(lean.state_dict())
    assert again.scores().aum is None
    # One batch without them among batches with them is enough, unless none of it was recorded.
    inputs, targets, index = batch(20, 3)
    with full.paused():
        dual_loss(layer()(inputs), targets, index, full, backend=backend, by_products=False)
    assert full.scores().aum is not None
    dual_loss(layer()(inputs)[:1], targets[:1], index[:1], full, backend=backend, by_products=False)
    dual_loss(layer()(inputs), targets, index, full, backend=backend)
    found = full.scores()
    assert found.aum is found.aum_prob is found.late_margin is found.el2n is found.entropy is None


def test_a_state_of_version_01_without_by_products_stays_so() -> None:
    """It noted them in a flag alone: its lines hold zeros."""
    table = ScoreTable(20, window=2)
    inputs, targets, index = batch(20)
    dual_loss(layer()(inputs), targets, index, table)
    state = {**table.state_dict(), "by_products": False}
    del state["trajectories"]
    again = ScoreTable(20, window=2)
    again.load_state_dict(state)
    dual_loss(layer()(inputs), targets, index, again)
    found = again.scores()
    assert found.aum is found.aum_prob is found.late_margin is found.el2n is found.entropy is None
    assert again.state_dict()["by_products"] is False
    np.testing.assert_array_equal(found.mean, ScoreTable.scores(table).mean)


# ---- torch.compile --------------------------------------------------------------------------------------------------


def compiled(compiler: str, dtype: torch.dtype, tolerance: float, **options: Any) -> None:
    """Three steps, compiled whole, give the losses, gradients and lines of three eager ones."""
    weight = None if dtype == torch.float16 else torch.linspace(0.5, 2, CLASSES)  # which leaves half no headroom
    ends = []
    for compile_it in (False, True):
        torch.compiler.reset()
        model, table = layer(), ScoreTable(30, window=2, **EVERYTHING)
        criterion = DualLoss(table, weight=weight, label_smoothing=0.1, **options)

        def step(
            inputs: torch.Tensor, targets: torch.Tensor, index: torch.Tensor, model: Any = model, loss: Any = criterion
        ) -> Any:
            return loss(model(inputs).to(dtype), targets, index)

        run = torch.compile(step, fullgraph=True, backend=compiler) if compile_it else step
        losses = []
        for seed in range(3):
            loss = run(*batch(30, seed))
            loss.backward(torch.linspace(-1, 2, 30) if loss.ndim else torch.tensor(3.0))
            losses.append(loss.detach())
        ends.append((torch.stack(losses), grad_of(model), table))
    for eager, ours in zip(ends[0][:2], ends[1][:2], strict=True):
        torch.testing.assert_close(ours, eager, rtol=tolerance, atol=tolerance)
    assert torch.equal(ends[0][2].lines, ends[1][2].lines)
    for name, value in ends[0][2].beside.items():
        torch.testing.assert_close(ends[1][2].beside[name], value, rtol=0, atol=0, equal_nan=True, msg=name)
    assert recorded(ends[1][2]) == [3] * 30


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_compiles_as_one_graph(dtype: torch.dtype, inplace: bool, reduction: str) -> None:
    compiled("aot_eager", dtype, 1e-6, inplace=inplace, reduction=reduction, by_products=reduction == "mean")


def test_compiles_with_inductor() -> None:
    """inductor keeps bfloat16 gradients in float32 registers, so float32 is compared."""
    try:
        torch.compile(lambda x: x + 1, backend="inductor")(torch.zeros(2))
    except Exception as error:  # whatever keeps it from a C++ compiler
        pytest.skip(f"inductor does not run here: {str(error).splitlines()[0]}")
    compiled("inductor", torch.float32, 1e-5, inplace=True)


def test_the_operator_is_declared_as_it_behaves() -> None:
    """torch's own check of schema, mutation and fake tensors."""
    table = ScoreTable(6, window=2, **EVERYTHING)
    inputs, targets, index = batch(6)
    state = (table.lines, table.status, *table.beside.values())
    options: dict[str, Any] = {"window": 2, "limit": 99, "backend": "auto", "reduction": "mean", "scale": 1.0}
    options |= {"label_smoothing": 0.1, "ignore_index": -100, "by_products": True}
    tests = ("test_schema", "test_faketensor")
    arguments = (inputs, targets.clamp(max=FEATURES - 1), index, None, *state)
    torch.library.opcheck(torch.ops.dualfast.step.default, arguments, {**options, "with_grad": True}, test_utils=tests)
    torch.library.opcheck(torch.ops.dualfast.step_.default, arguments, options, test_utils=tests)


def test_bad_shapes_are_named_while_tracing() -> None:
    criterion = torch.compile(DualLoss(ScoreTable(6)), fullgraph=True, backend="aot_eager")
    inputs, targets, index = batch(6)
    with pytest.raises(Exception, match=r"index have the shape \(5,\)"):
        criterion(inputs, targets, index[:5])


# ---- several processes ----------------------------------------------------------------------------------------------


def worker(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    inputs, targets, index = (part.chunk(2)[rank] for part in batch(32))
    table = ScoreTable(32, window=2)
    model = torch.nn.parallel.DistributedDataParallel(layer())
    criterion = DualLoss(table)
    for _ in range(2):
        model.zero_grad()
        criterion(model(inputs), targets, index).backward()
    torch.save({"grad": grad_of(model), "table": table.state_dict()}, Path(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel_gives_the_gradients_of_the_joined_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    model, table = layer(), ScoreTable(32, window=2)
    inputs, targets, index = batch(32)
    for _ in range(2):
        model.zero_grad()
        dual_loss(model(inputs), targets, index, table).backward()
    for rank in ranks:
        torch.testing.assert_close(rank["grad"], grad_of(model), rtol=1e-5, atol=1e-7)
    # Each rank has recorded its own half and nothing of the other's.
    assert torch.equal(ranks[0]["table"]["lines"] + ranks[1]["table"]["lines"], table.lines)


# ---- visits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_a_window_is_of_a_samples_own_visits(backend: str) -> None:
    """Epochs drop their tail, samples come twice in an epoch or twice in a batch: the last J visits count, in order."""
    n, table = 20, ScoreTable(20, window=4, epochs=9)
    log: list[list[reference.Visit]] = [[] for _ in range(n)]
    model = layer()
    repeats = 0
    for epoch in range(12):
        draw = torch.Generator().manual_seed(epoch)
        order = torch.cat([torch.randperm(n, generator=draw), torch.randint(0, n, (9,), generator=draw)])
        for index in order.split(8)[:3]:  # drop_last: five rows are never seen
            inputs, targets, _ = batch(len(index), 100 * epoch + int(index[0]))
            logits = model(3 * inputs)
            dual_loss(logits, targets, index, table, backend=backend)
            seen: set[int] = set()
            for i, y, row in zip(index.tolist(), targets.tolist(), logits.detach().double().numpy(), strict=True):
                if i in seen:
                    repeats += 1
                    continue
                seen.add(i)
                visit = reference.visit(row, y)
                assert visit is not None
                log[i].append(visit)
    assert repeats > 0
    assert len({len(visits) for visits in log}) > 3
    assert table.status.tolist() == [0, 0, repeats, 0, 0, 0]
    found, want = table.scores(), [reference.scores(v, window=4, epochs=9) for v in log]
    for name in ("dual", "mean", "aum"):
        np.testing.assert_allclose(getattr(found, name), [w[name] for w in want], rtol=1e-4, atol=1e-6, err_msg=name)
    assert found.visits is not None
    assert found.visits.tolist() == [w["visits"] for w in want]


def test_a_sample_twice_in_an_epoch_has_two_visits_and_twice_in_a_batch_one() -> None:
    inputs, targets, _ = batch(3)
    table = ScoreTable(2, window=2)
    for index in ([0, 1, 0], [0, 1, 1], [0, 0, 0]):
        dual_loss(inputs[:, :CLASSES], targets, torch.tensor(index), table)
    assert recorded(table) == [3, 2]
    assert table.status[ops.DUPLICATES] == 4


def test_a_paused_table_records_nothing() -> None:
    inputs, targets, index = batch(6)
    logits = inputs[:, :CLASSES].clone()
    logits[2] = float("nan")
    for backend in ("cpp", "torch"):
        table = ScoreTable(6, window=2, track_loss=True)
        before = {k: v.clone() for k, v in table.state_dict().items() if isinstance(v, torch.Tensor)}
        with table.paused():
            loss = dual_loss(logits, targets, index.clamp(max=4), table, backend=backend, reduction="none")
        torch.testing.assert_close(loss, cross_entropy(logits, targets, reduction="none"), equal_nan=True)
        for name, value in before.items():
            assert torch.equal(table.state_dict()[name], value), name
        dual_loss(logits, targets, index, table, backend=backend)
        assert recorded(table).count(1) == 5


# ---- devices --------------------------------------------------------------------------------------------------------


def test_a_device_without_a_kernel_is_slow_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "_slow_devices", set())
    for name in ("mps", "xpu"):
        with pytest.warns(UserWarning, match=f"device {name}: .* plain torch path"):
            assert ops.pick_backend("auto", torch.device(name)) == "torch"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert ops.pick_backend("auto", torch.device(name)) == "torch"
        with pytest.raises(ValueError, match="backend is 'cpp'"):
            ops.pick_backend("cpp", torch.device(name))


def test_the_debug_switch_raises_at_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA the counters are filled by the kernel (see interpreted_kernels.py); here by hand."""
    inputs, targets, index = batch(4)
    table = ScoreTable(4)
    table.status[ops.BAD_TARGET] = 2
    dual_loss(inputs[:, :CLASSES], targets, index, table)
    monkeypatch.setattr(step_module, "DEBUG", True)
    with pytest.raises(ValueError, match="2 targets lay outside"):
        dual_loss(inputs[:, :CLASSES], targets, index, table)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")


@needs_gpu
@pytest.mark.parametrize("inside", [False, True])
def test_a_captured_graph_records_at_its_replays_only(inside: bool) -> None:
    inputs, targets, index = (part.cuda() for part in batch(64))
    table = ScoreTable(64, window=2, device="cuda")
    model = layer().cuda()

    def step() -> None:
        model.zero_grad(set_to_none=False)
        dual_loss(model(inputs), targets, index, table).backward()

    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    with table.paused():
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        if inside:
            with torch.cuda.graph(graph):
                step()
    if not inside:
        with torch.cuda.graph(graph):
            step()
    assert recorded(table) == [0] * 64
    for _ in range(3):
        graph.replay()
    assert recorded(table) == [3] * 64
    exact = layer().cuda()
    cross_entropy(exact(inputs), targets).backward()
    torch.testing.assert_close(grad_of(model), grad_of(exact), rtol=1e-4, atol=1e-6)


@needs_gpu
def test_a_training_step_never_waits_for_the_gpu() -> None:
    inputs, targets, index = (part.cuda() for part in batch(64))
    table, model = ScoreTable(64, window=2, device="cuda", tdds=CLASSES), layer().cuda()
    dual_loss(model(inputs), targets, index, table).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with table.paused():
            dual_loss(model(inputs), targets, index, table).backward()
        dual_loss(model(inputs), targets, index, table, inplace=True).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert recorded(table) == [2] * 64
