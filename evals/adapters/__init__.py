"""Models behind the protocols of scoring: :class:`evals.samplers.Sampler` and :class:`evals.text_brier.TextSampler`.

======================================  =======================================================================
any model of transformers               :class:`evals.adapters.hugging_face.HuggingFaceSampler`
our own models                          :class:`evals.samplers.ModelSampler`
any of these, asked for text            :class:`evals.adapters.token_text.TokenTextSampler`
any model of lm-eval, asked for text    :class:`evals.adapters.lm_eval_model.LmEvalTextSampler`
======================================  =======================================================================
"""
