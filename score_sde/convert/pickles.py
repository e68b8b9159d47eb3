"""Pickles as data: a machine for their instructions that cannot call anything.

A pickle is a program for a stack machine, and loading one with the standard library runs whatever functions
it names.  This machine reads the same instructions, but a global is only a ``Name``, and "call" looks the
name up in ``CALLS``, a table of pure functions from data to data.  What is not in the table is refused.

So the result consists of dictionaries, lists, tuples, sets, strings, bytes, numbers, NumPy arrays, ``Name``
and ``Record``.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from score_sde.convert.errors import CheckpointError, UnsafePickle
from score_sde.convert.inert import (
    CALLS,
    RECORDS,
    Dtype,
    Name,
    Record,
    Storage,
    as_dict,
    as_set,
    canonical,
)

_MARK = object()
# What our functions raise on data that no library has written.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
# Instructions that push the value written in the file.
_LITERAL = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_SHORT_TUPLE = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Machine:
    """Reads one pickle.

    Args:
      storage: what a persistent id of torch refers to; None where a pickle may have none.
      from_bytes: reads a torch file within a pickle; None where there may be none.
    """

    def __init__(
        self,
        storage: Callable[[tuple], Storage] | None = None,
        from_bytes: Callable[[bytes], object] | None = None,
    ):
        self._storage, self._from_bytes = storage, from_bytes
        self._stack: list[Any] = []
        self._memo: dict[int, object] = {}

    def run(self, file: BinaryIO) -> Any:
        """The value of the pickle at the file's position, which moves to behind it.

        Raises:
          UnsafePickle: it wants to call something that is not allowed.
          CheckpointError: it is cut off or is no pickle.
        """
        start = position = file.tell()
        try:
            for opcode, argument, at in pickletools.genops(file):
                position = at if at is not None else position
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._do(opcode.name, argument)
        except CheckpointError:
            raise
        except _DAMAGE as error:
            if position == start:
                raise CheckpointError("not a pickle, or an empty one") from error
            raise CheckpointError(f"cut off or damaged at byte {position}: {error}") from error
        raise CheckpointError("cut off before its end")

    def call(self, function: object, arguments: Any) -> object:
        """What a pickle gets for a call: the result of our function of that name.

        Raises:
          UnsafePickle: there is none.
        """
        if not isinstance(function, Name):
            raise UnsafePickle(f"refused: it wants to call a {type(function).__name__}, which is no function")
        name = canonical(function)
        if name == "torch.storage._load_from_bytes" and self._from_bytes is not None:
            return self._from_bytes(*arguments)
        if name == "torch._tensor._rebuild_from_type_v2":
            return self.call(arguments[0], arguments[2])
        if name == "copyreg._reconstructor":
            return self._object(arguments[0])
        if name not in CALLS:
            raise UnsafePickle(f"refused: it wants to call {function}, which no checkpoint needs")
        return CALLS[name](*arguments)

    def _object(self, name: object, arguments: tuple = ()) -> object:
        """A new object of a class; of a library's class, an empty record."""
        if isinstance(name, Name) and str(name).startswith(RECORDS) and canonical(name) not in CALLS:
            return Record(str(name))
        return self.call(name, arguments)

    def _do(self, name: str, argument: object) -> None:
        stack = self._stack
        if name in _LITERAL:
            stack.append(argument)
        elif name in _CONSTANT:
            stack.append(_CONSTANT[name])
        elif name in _SHORT_TUPLE:
            count = _SHORT_TUPLE[name]
            stack[-count:] = [tuple(stack[-count:])]
        else:
            method = getattr(self, f"_op_{name.lower()}", None)
            if method is None:
                raise UnsafePickle(f"refused: it uses the instruction {name}, which no checkpoint needs")
            method(argument)

    def _since_mark(self) -> list[Any]:
        for i in reversed(range(len(self._stack))):
            if self._stack[i] is _MARK:
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise IndexError("no mark")

    # Containers.

    def _op_proto(self, _: object) -> None: ...

    def _op_frame(self, _: object) -> None: ...

    def _op_mark(self, _: object) -> None:
        self._stack.append(_MARK)

    def _op_pop(self, _: object) -> None:
        self._stack.pop()

    def _op_pop_mark(self, _: object) -> None:
        self._since_mark()

    def _op_dup(self, _: object) -> None:
        self._stack.append(self._stack[-1])

    def _op_empty_dict(self, _: object) -> None:
        self._stack.append({})

    def _op_empty_list(self, _: object) -> None:
        self._stack.append([])

    def _op_empty_set(self, _: object) -> None:
        self._stack.append(set())

    def _op_tuple(self, _: object) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _op_list(self, _: object) -> None:
        self._stack.append(self._since_mark())

    def _op_dict(self, _: object) -> None:
        items = self._since_mark()
        self._stack.append(as_dict(list(zip(items[::2], items[1::2], strict=True))))

    def _op_frozenset(self, _: object) -> None:
        self._stack.append(frozenset(as_set(self._since_mark())))

    def _op_append(self, _: object) -> None:
        item = self._stack.pop()
        self._target(list).append(item)

    def _op_appends(self, _: object) -> None:
        items = self._since_mark()
        self._target(list).extend(items)

    def _op_additems(self, _: object) -> None:
        items = self._since_mark()
        self._target(set).update(as_set(items))

    def _op_setitem(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._target(dict).update(as_dict([(key, value)]))

    def _op_setitems(self, _: object) -> None:
        items = self._since_mark()
        self._target(dict).update(as_dict(list(zip(items[::2], items[1::2], strict=True))))

    def _target(self, kind: type) -> Any:
        """The container on top, which must be one of ours: nothing else can be written to."""
        if type(self._stack[-1]) is not kind:
            raise UnsafePickle(
                f"refused: it wants to write into {_describe(self._stack[-1])} as into a {kind.__name__}"
            )
        return self._stack[-1]

    # Names for what comes again.

    def _op_memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _op_put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _op_binput = _op_long_binput = _op_put

    def _op_get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _op_binget = _op_long_binget = _op_get

    # Objects.

    def _op_global(self, argument: str) -> None:
        module, _, attribute = argument.partition(" ")
        self._stack.append(Name(module, attribute))

    def _op_stack_global(self, _: object) -> None:
        attribute, module = self._stack.pop(), self._stack.pop()
        if type(module) is not str or type(attribute) is not str:
            raise UnsafePickle("refused: it names a global by something that is no text")
        self._stack.append(Name(module, attribute))

    def _op_reduce(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self.call(function, arguments))

    def _op_newobj(self, _: object) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        self._stack.append(self._object(name, arguments))

    def _op_newobj_ex(self, _: object) -> None:
        _, arguments, name = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._stack.append(self._object(name, arguments))

    def _op_build(self, _: object) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, Dtype):
            if state[2] is not None or state[3] is not None:
                raise ValueError("an array of records")
            target.order = str(state[1])
        elif isinstance(target, np.ndarray) and target.base is None and target.size == 0:
            _, shape, dtype, fortran, data = state
            if type(data) is not bytes:
                raise ValueError("an array of objects")
            memory: Any = target
            memory.__setstate__((1, tuple(shape), dtype.numpy(), bool(fortran), data))
        elif type(target) is not dict:  # of a dictionary, the attributes are not data
            raise UnsafePickle(f"refused: it wants to set attributes of {_describe(target)}")

    def _op_binpersid(self, _: object) -> None:
        identity = self._stack.pop()
        if self._storage is None:
            raise UnsafePickle("refused: it refers to something outside of itself")
        self._stack.append(self._storage(identity))


def _describe(value: object) -> str:
    return str(value) if isinstance(value, Name) else f"a {type(value).__name__}"
