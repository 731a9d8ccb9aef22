"""dshard.Plan: look at a plan, and run it."""

import json
import os
import threading
import warnings
from collections.abc import Mapping
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from dshard import _dtypes, _runtime
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
    Plan: their runs take turns.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        weights: Optional[PathLike] = None,
        random_weights: Optional[int] = None,
        threads: int = 0,
    ) -> None:
        self._path = os.fspath(path)
        self._plan = _runtime.Plan(self._path)
        self._options = (None if weights is None else os.fspath(weights), random_weights, threads)
        self._session: Any = None
        self._lock = threading.Lock()
        self._ports = {
            name: ([_Port(*p) for p in inputs], [_Port(*p) for p in outputs])
            for name, inputs, outputs in self._plan.entries()
        }

    @property
    def path(self) -> str:
        """The file."""
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
        self._get_session(load=False).load()

    def run(
        self,
        inputs: Mapping[str, Any],
        *,
        entry: Optional[str] = None,
        scalars: Optional[Mapping[str, float]] = None,
        outputs: Optional[Sequence[str]] = None,
    ) -> Dict[str, np.ndarray]:
        """Run an entry point once, on all ranks, without the GIL.

        Args:
          inputs: every input of the entry point, global, by name: a numpy array, an object with
            `__dlpack__` in host memory (no copy is made of a dense one), or nested lists of numbers.
            Types are not converted: an array must have the plan's.
          entry: its name. None: "run", or the only one there is.
          scalars: scalars to set before the run, as {"lr": 1e-3}; they keep their values.
          outputs: which outputs to collect. None: all.

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
        arrays = {name: _to_array(entry, name, value, wanted.get(name)) for name, value in inputs.items()}
        given = [(name, code, list(a.shape), a.ctypes.data) for name, (a, code) in arrays.items()]
        known = [p.name for p in results if not p.is_check]
        names = known if outputs is None else list(outputs)
        collected = {}
        asked = []
        for name in names:
            port = next((p for p in results if p.name == name), None)
            if port is None:
                raise Error(f"entry '{entry}' has no output '{name}'; it has {', '.join(known)}")
            collected[name] = np.empty(port.dims, _dtypes.NUMPY[port.code])
            asked.append((name, port.code, list(port.dims), collected[name].ctypes.data))
        found = self._get_session().run(
            entry, given, asked, [(name, float(value)) for name, value in (scalars or {}).items()]
        )
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
        return {p.name: p.tensor() for p in self._state_ports()}

    def state(self, name: str) -> np.ndarray:
        """A copy of a state, global, as `run` has left it.

        >>> training.state("up_proj.weight.exp_avg").shape
        (256, 64)
        """
        for index, port in enumerate(self._state_ports()):
            if port.name == name:
                array = np.empty(port.dims, _dtypes.NUMPY[port.code])
                self._get_session().get_state(index, array.ctypes.data)
                return array
        raise Error(f"the plan has no state '{name}' that can be read; Plan.states lists them")

    def close(self) -> None:
        """Give back the memory and the ranks' threads. A later run begins with the weights again."""
        with self._lock:
            self._session = None

    def __enter__(self) -> "Plan":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        entries = ", ".join(self._ports)
        return f"<dshard.Plan {self._path!r}: {self.ranks} ranks, {self.target}, entries {entries}>"

    def _entry(self, name: Optional[str]) -> str:
        names = list(self._ports)
        if name is None:
            name = names[0] if len(names) == 1 else "run"
        if name not in self._ports:
            raise Error(f"the plan has no entry '{name}'; it has {', '.join(names)}")
        return name

    def _get_session(self, load: bool = True) -> Any:
        with self._lock:
            if self._session is None:
                session = _runtime.Session(self._path, *self._options)
                if load:
                    session.load()
                self._session = session
            return self._session

    def _state_ports(self) -> Sequence[_Port]:
        return [_Port(*p) for p in self._get_session().states()]


def _to_array(entry: str, name: str, value: Any, port: Optional[_Port]) -> Tuple[np.ndarray, int]:
    """A dense array in host order and the plan's code of its type."""
    if port is None:
        # The runtime says what there is.
        return np.zeros((), np.float32), 12
    where = f"input '{name}' of '{entry}'"
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
    elif hasattr(value, "__dlpack__"):
        try:
            array = np.from_dlpack(value)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise Error(f"{where}: numpy cannot take it through DLPack: {error}") from None
    else:
        try:
            array = np.asarray(value, _dtypes.NUMPY[port.code])
        except (TypeError, ValueError, OverflowError) as error:
            raise Error(f"{where}: {error}") from None
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    code = _dtypes.code_of(array.dtype, port.code)
    if code is None:
        raise Error(f"{where} has the type {array.dtype}, which plans do not have; this one takes {_dtypes.NUMPY[port.code]}")
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array, code


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
      random_weights: a seed: draw the weights instead of reading them (docs/RandomWeights.md).
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
