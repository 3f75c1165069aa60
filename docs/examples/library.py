from modulators import FieldModulator, attach, load_t5, relational_lift, stream_of

model, tokenizer = load_t5("mini")  # frozen; or a folder, or "google-t5/t5-small"
handle = attach(model, FieldModulator(stream_of(model.config), initial_alpha=0.1))
ids = tokenizer("summarize: a domesticated carnivorous mammal", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=8)[0], skip_special_tokens=True))
with handle.disabled():  # the original T5, bit for bit
    print(tokenizer.decode(model.generate(ids, max_new_tokens=8)[0], skip_special_tokens=True))
lift = relational_lift(model, tokenizer, handle)  # over all 37.8 million pairs of synsets, with a 95% interval
print("{pearson_lift:+.4f} [{pearson_lift_low:+.4f}, {pearson_lift_high:+.4f}]".format(**lift))
