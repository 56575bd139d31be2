"""faster-whisper as its users have it: `faster_whisper_worker.py MODEL_FOLDER THREADS`, one JSON line in, one out."""

import json
import sys
import time

import faster_whisper

model = faster_whisper.WhisperModel(sys.argv[1], device="cpu", compute_type="int8", cpu_threads=int(sys.argv[2]))
batched = faster_whisper.BatchedInferencePipeline(model)


def listen(path, mode):
    start = time.perf_counter()
    options = {"language": "en", "beam_size": 5 if mode == "beam 5" else 1}
    if mode == "batched":
        segments, _ = batched.transcribe(path, batch_size=8, **options)
    else:
        segments, _ = model.transcribe(path, **options)
    text, first = "", None
    for segment in segments:
        first = first or time.perf_counter() - start
        text += segment.text
    seconds = time.perf_counter() - start
    return {"text": text, "seconds": seconds, "firstSegment": first or seconds}


def say(answer):
    print(json.dumps(answer), flush=True)


say({"about": f"{faster_whisper.__version__}, int8"})
for line in sys.stdin:
    question = json.loads(line)
    try:
        say(listen(question["path"], question["mode"]))
    except Exception as error:  # the bench prints it
        say({"error": str(error)})
