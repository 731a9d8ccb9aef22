"""dshard.Plan: look at a plan, and run it."""

import json
import os
import threading
import warnings
from collections.abc import Mapping
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from dshard import _arguments, _dtypes, _runtime
from dshard._errors import Error

PathLike = Union[str, "os.PathLike[str]"]


class Tensor(NamedTuple):
    """Name, type and global shape of an input, an output or a state."""

    name: str
    dtype: np.dtype
    shape: Tuple[int, ...]


class Entry(NamedTuple):
    """An entry point of a plan, with its inputs and outputs by name."""

    name: str
    inputs: Dict[str, Tensor]
    outputs: Dict[str, Tensor]


class _Port(NamedTuple):
    name: str
    code: int
    dims: Tuple[int, ...]
    is_check: bool

    def tensor(self) -> Tensor:
        return Tensor(self.name, _dtypes.NUMPY[self.code], tuple(self.dims))


class Plan:
    """A sharded execution plan. `load` and `compile` make one.

    Looking at it works on any machine. The first `run` (or `load_weights`) takes the memory and reads
    the weights; `close`, or the end of a `with` block, gives them back. Several threads may use one
    Plan: their runs take turns. Processes cannot share one: a plan that is loaded is refused in a
    forked child, and cannot be pickled; its file can be loaded again there.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        weights: Optional[PathLike] = None,
        random_weights: Optional[int] = None,
        threads: int = 0,
    ) -> None:
        given = _arguments.path(path, "the plan's path")
        # Relative paths are those of this moment, whenever the weights are read.
        folder = None if weights is None else os.path.abspath(_arguments.path(weights, "weights"))
        seed = None if random_weights is None else _arguments.integer(random_weights, "random_weights", 2**64)
        if folder is not None and seed is not None:
            raise Error("weights and random_weights are both given: the weights are read or drawn; leave one out")
        self._options = (folder, seed, _arguments.integer(threads, "threads", 2**32))
        self._plan = _runtime.Plan(given)
        self._path = os.path.abspath(given)
        self._file = _identity(self._path)
        self._session: Any = None
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._ports = {
            name: ([_Port(*p) for p in inputs], [_Port(*p) for p in outputs])
            for name, inputs, outputs in self._plan.entries()
        }

    @property
    def path(self) -> str:
        """The file, absolute."""
        return self._path

    @property
    def ranks(self) -> int:
        """How many ranks it runs on: the product of the mesh's axes."""
        return self._plan.ranks()

    @property
    def target(self) -> str:
        """What it is compiled for, as "cpu:x86-64-v3"."""
        return self._plan.target()

    @property
    def entries(self) -> Dict[str, Entry]:
        """The entry points by name: "run", and "train_step" of a training plan.

        >>> plan.entries["run"].inputs["x"]
        Tensor(name='x', dtype=dtype('float32'), shape=(16, 64))
        """
        return {
            name: Entry(
                name,
                {p.name: p.tensor() for p in inputs},
                {p.name: p.tensor() for p in outputs if not p.is_check},
            )
            for name, (inputs, outputs) in self._ports.items()
        }

    @property
    def inputs(self) -> Dict[str, Tensor]:
        """The inputs of the default entry point."""
        return self.entries[self._entry(None)].inputs

    @property
    def outputs(self) -> Dict[str, Tensor]:
        """The outputs of the default entry point."""
        return self.entries[self._entry(None)].outputs

    @property
    def scalars(self) -> Sequence[str]:
        """Names of the scalars that `run` may set, as "lr"."""
        return self._plan.scalars()

    def explain(self) -> str:
        """Every collective, a line each: reason, axes, bytes per rank, ONNX node.

        >>> print(plan.explain(), end="")
        run 2: all_reduce {tp} 4,096 B (4.00 KiB) per rank: row-parallel output of down_proj, forward, ...
        """
        return self._plan.explain()

    def memory(self) -> Dict[str, Any]:
        """Exact memory in bytes, instructions by kind, bytes of collectives: `dshard-plan stat --json`.

        >>> plan.memory()["memory_per_rank"]  # of the rank that needs most
        {'arena': 32768, 'state': 66304, 'messages': 0, 'peak': 99072, 'thread_scratch_per_thread': ...}
        """
        return json.loads(self._plan.stat_json())

    def stat(self) -> str:
        """The same as a text for people."""
        return self._plan.stat()

    def print(self) -> str:
        """The whole plan as text: every buffer, every instruction."""
        return self._plan.print()

    def verify(self) -> None:
        """Prove that all ranks can run it; Error if they cannot."""
        self._plan.verify()

    def load_weights(self) -> None:
        """Take all memory and read the weights now, else the first `run` does. Again: optimizer states
        begin again."""
        self._get_session(reload=True)

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        entry: Optional[str] = None,
        scalars: Optional[Mapping[str, float]] = None,
        outputs: Union[str, Sequence[str], None] = None,
    ) -> Dict[str, np.ndarray]:
        """Run an entry point once, on all ranks, without the GIL.

        Args:
          inputs: every input of the entry point, global, by name: a numpy array, an object with
            `__dlpack__` in host memory (no copy is made of a dense one), or nested lists of numbers.
            Types are not converted: an array must have the plan's.
          entry: its name. None: "run", or the only one there is.
          scalars: scalars to set before the run, as {"lr": 1e-3}; they keep their values.
          outputs: which outputs to collect, a name or several. None: all.

        Returns:
          The outputs as new numpy arrays, global, by name. bfloat16 is `ml_dtypes.bfloat16` where
          that package is installed, else its bits as uint16.

        Raises:
          Error: a wrong input, weights that are missing or changed, or gradients that are not finite
            where the plan says that training stops; where it says that the step is skipped, this is
            a RuntimeWarning.

        Example:
          >>> plan.run({"x": np.ones((16, 64), np.float32)})["y"].shape
          (16, 64)
          >>> for x, labels in batches:
          ...     loss = training.run({"x": x, "labels": labels}, entry="train_step", scalars={"lr": 1e-3})["loss"]
        """
        entry = self._entry(entry)
        ports, results = self._ports[entry]
        wanted = {p.name: p for p in ports}
        arrays = {
            name: _to_array(entry, name, value, wanted.get(name))
            for name, value in _arguments.named(inputs, "inputs", '{"x": x}').items()
        }
        given = [(name, code, list(a.shape), a.ctypes.data) for name, (a, code) in arrays.items()]
        known = [p.name for p in results if not p.is_check]
        # Each once: the addresses are those of the arrays in `collected`.
        names = known if outputs is None else list(dict.fromkeys([outputs] if isinstance(outputs, str) else outputs))
        collected = {}
        asked = []
        for name in names:
            port = next((p for p in results if p.name == name), None)
            if port is None:
                raise Error(f"entry '{entry}' has no output '{name}'; it has {', '.join(known)}")
            collected[name] = np.empty(port.dims, _dtypes.NUMPY[port.code])
            asked.append((name, port.code, list(port.dims), collected[name].ctypes.data))
        numbers = _arguments.named(scalars or {}, "scalars", '{"lr": 1e-3}')
        values = [(name, _arguments.number(value, f"the scalar '{name}'")) for name, value in numbers.items()]
        found = self._get_session().run(entry, given, asked, values)
        if found:
            text, skipped = found
            if not skipped:
                raise Error(f"{text}; this step changed nothing")
            warnings.warn(f"{text}; the step is skipped", RuntimeWarning, stacklevel=2)
        return collected

    @property
    def states(self) -> Dict[str, Tensor]:
        """Parameters and optimizer states that can be read: all but packed weights, which nothing changes.
        Takes a machine that can run the plan."""
        return {p.name: p.tensor() for p in _states(self._get_session())}

    def state(self, name: str) -> np.ndarray:
        """A copy of a state, global, as `run` has left it.

        >>> training.state("up_proj.weight.exp_avg").shape
        (256, 64)
        """
        session = self._get_session()
        for index, port in enumerate(_states(session)):
            if port.name == name:
                array = np.empty(port.dims, _dtypes.NUMPY[port.code])
                session.get_state(index, array.ctypes.data)
                return array
        raise Error(f"the plan has no state '{name}' that can be read; Plan.states lists them")

    def close(self) -> None:
        """Give back the memory and the ranks' threads. A later run begins with the weights again."""
        if self._process != os.getpid():
            self._session = None  # a forked child has nothing to give back, and its lock may be held for ever
            return
        with self._lock:
            self._session = None

    def __reduce__(self) -> Any:
        # The exception that pickle, copy and multiprocessing expect.
        raise TypeError("a dshard.Plan cannot be pickled or copied; load its file again: dshard.load(plan.path)")

    def __enter__(self) -> "Plan":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        entries = ", ".join(self._ports)
        ranks = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        return f"<dshard.Plan {self._path!r}: {ranks}, {self.target}, entries {entries}>"

    def _entry(self, name: Optional[str]) -> str:
        names = list(self._ports)
        if name is None:
            name = names[0] if len(names) == 1 else "run"
        if name not in self._ports:
            raise Error(f"the plan has no entry '{name}'; it has {', '.join(names)}")
        return name

    def _check_process(self) -> None:
        if self._session is not None and self._process != os.getpid():
            raise Error(
                f"{self._path}: this Plan was loaded before the process forked, and its ranks' threads are not in "
                "the child; load the file again there, or fork before the first run"
            )

    def _get_session(self, reload: bool = False) -> Any:
        self._check_process()
        with self._lock:
            session = self._session
            if session is not None and not reload:
                return session
            if session is None:
                if _identity(self._path) not in (self._file, None):
                    raise Error(f"{self._path}: is another plan than the one that was opened; load it again")
                session = _runtime.Session(self._path, *self._options)
            self._session = None  # if reading fails, the next run tries again
            session.load()
            self._session, self._process = session, os.getpid()
            return session


def _states(session: Any) -> Sequence[_Port]:
    return [_Port(*p) for p in session.states()]


def _identity(path: str) -> Optional[Tuple[int, ...]]:
    """Changes when the file is written again; None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _to_array(entry: str, name: str, value: Any, port: Optional[_Port]) -> Tuple[np.ndarray, int]:
    """A dense array in host order and the plan's code of its type."""
    if port is None:
        # The runtime says what there is.
        return np.zeros((), np.float32), 12
    where = f"input '{name}' of '{entry}'"
    if isinstance(value, np.ma.MaskedArray):
        raise Error(f"{where} is a masked array, and plans know no masks; give x.filled(VALUE)")
    if isinstance(value, (list, tuple, bool, int, float)):
        array = _arguments.numbers(value, where, _dtypes.NUMPY[port.code], port.code == _dtypes.BF16_CODE)
    elif hasattr(value, "__dlpack__") and not isinstance(value, (np.ndarray, np.generic)):
        array = _arguments.from_dlpack(value, where)
    else:
        array = np.asarray(value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    code = _dtypes.code_of(array.dtype, port.code)
    if code is None:
        raise Error(f"{where} has the type {array.dtype}, which plans do not have; this one takes {_dtypes.NUMPY[port.code]}")
    return np.require(array, requirements=["C", "ALIGNED"]), code


def load(
    path: PathLike,
    *,
    weights: Optional[PathLike] = None,
    random_weights: Optional[int] = None,
    threads: int = 0,
) -> Plan:
    """Open a plan that `compile` or dshard-opt has written.

    Args:
      path: the .dsplan.
      weights: the folder of the weight files. None: the model's, as the plan records it.
      random_weights: a seed, 0 or more: draw the weights instead of reading them (docs/RandomWeights.md).
      threads: worker threads per rank. 0: the environment's DSHARD_THREADS, else the cores' share.

    Returns:
      The Plan; weights are read by its first run.

    Raises:
      Error: the file is not there, or no plan, or damaged.

    Example:
      >>> plan = dshard.load("mlp.dsplan")
      >>> y = plan.run({"x": np.ones((16, 64), np.float32)})["y"]
    """
    return Plan(path, weights=weights, random_weights=random_weights, threads=threads)
