"""Train two heads at equal FLOPs and read the answer: python compare_heads.py [STORE]"""

import sys

import calm_bench as cb

study = cb.Study.from_yaml(
    "smoke",
    "name=two-heads",
    "search.parameters=[{name: model.head.kind, values: [energy, flow]}]",
    store=sys.argv[1] if len(sys.argv) > 1 else "runs",
)
print(f"{study.plan().training_flops:.3g} training FLOPs")

result = study.run(local=True)
print(result)
print(result.to_pandas()[["label", "brierlm", "brierlm_se", "total_training_flops"]])

best = result.load_model(result[0].label)
for piece in best.stream("a", max_new_tokens=40, temperature=0.5):
    print(piece, end="", flush=True)
print()
