"""Prints what TensorBoard reads in a folder of event files, as JSON."""
import glob
import json
import sys

from tensorboard.backend.event_processing import event_accumulator, event_file_loader

folder = sys.argv[1]
accumulator = event_accumulator.EventAccumulator(folder, size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
accumulator.Reload()
tags = accumulator.Tags()


def scalars(tag):
    events = accumulator.Scalars(tag)
    found = {str(e.step): e.value for e in events}
    assert len(found) == len(events), f"{tag}: a step twice"
    return found


for path in sorted(glob.glob(folder + "/*")):
    count = sum(1 for _ in event_file_loader.EventFileLoader(path).Load())
    assert count > 4, f"{path}: {count} events"
texts = {tag: accumulator.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags["tensors"]}
json.dump({"loss": scalars("loss"), "eval_loss": scalars("eval/loss"), "histograms": sorted(tags["histograms"]), "texts": texts}, sys.stdout)
