"""Read what a store holds, without running anything: python read_a_store.py STUDY [STORE]"""

import sys

import calm_bench as cb

study = cb.Study.from_yaml(sys.argv[1], store=sys.argv[2] if len(sys.argv) > 2 else "runs")
result = study.result()
frame = result.to_pandas()
print(frame.sort_values("brierlm", ascending=False)[["label", "chunk_size", "brierlm", "brierlm_se"]])
print(result.headline or "too few rows for a headline")

model = result.load_model(result[0].label)
print(model)
print(model.score(store=study.config.execution.store, max_windows=8).to_dict()["brier"])
