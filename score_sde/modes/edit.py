"""``--mode=edit``."""

from score_sde.flags import Options
from score_sde.modes.impute import fill_table
from score_sde.modes.run import conditions_of, examples_path, model_of, seed_of
from score_sde.runs.edit import Editor
from score_sde.runs.edit_inputs import find_pictures
from score_sde.runs.edited import ROWS, write_edited
from score_sde.runtime.processes import say

OF_TABLES = {"impute": fill_table}  # tasks of other data than pictures


def edit(options: Options) -> int:
    """Pictures that agree with what is kept of ``--input``: several for each, their mean and their spread."""
    other = OF_TABLES.get(options.config.edit.task.name)
    if other is not None:
        return other(options)
    model, section = model_of(options), options.config.edit
    editor = Editor.of(model, section, seed_of(options))
    output = examples_path(options, model.architecture.spec, f"edit_{section.task.name}")
    found = find_pictures("0,1,2,3" if options.input is None else options.input, editor)
    write_edited(editor, found, output, conditions_of(options, model.sampler.conditions))
    said = f"{len(found)} pictures, {section.samples} samples of each by {editor.method[0]}, in {output}"
    if output.suffix != ".npz":
        name = "" if output.suffix else "panel.png: "
        rows = f"the first {ROWS}" if len(found) > ROWS else "a row each"
        said += (
            f"; {name}{rows}: the input, what is kept, samples, their mean, twice their standard deviation"
        )
    say(said)
    return 0
