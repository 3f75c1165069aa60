"""Command lines that are wrong, and what the line that says so must hold."""

FIELD = ("fit", "--config", "field.yaml")
LERP = ("fit", "--config", "lerp.yaml")
ENCODER = ("fit", "--config", "encoder.yaml")
WANDB = (*FIELD, "--config", "wandb.yaml")
PRETRAIN = ("fit", "--config", "pretrain_mini.yaml")
WAVE = ("fit", "--config", "wavegpt/wave.yaml")

# What the schema cannot say of the trainer's parts, and their constructors or the parser find.
LATE_PARTS: dict[tuple[str, ...], tuple[str, ...]] = {
    (*FIELD, "--trainer.strategy", "DDPStrategy", "--trainer.strategy.timeout", "foo"): (
        "error: trainer.strategy.timeout: ",
        '"h:m:s"',
        '"foo"',
    ),
    (*FIELD, "--trainer.strategy", "DDPStrategy", "--trainer.strategy.foo", "3"): (
        "error: trainer.strategy: ",
        "'foo'",
    ),
    (*FIELD, "--trainer.strategy", "FSDPStrategy", "--trainer.strategy.sharding_strategy", "foo"): (
        "error: trainer.strategy.sharding_strategy: ",
        "FULL_SHARD",
    ),
    (*FIELD, "--trainer.strategy", "SingleDeviceStrategy", "--trainer.strategy.device", "foo"): (
        "error: trainer.strategy: ",
        "device string: foo",
    ),
    (*FIELD, "--trainer.callbacks", "[{class_path: GradientAccumulationScheduler, init_args: {scheduling: {a: 2}}}]"): (
        "error: trainer.callbacks.scheduling: ",
        "'a'",
    ),
    (*FIELD, "--trainer.callbacks", "[{class_path: GradientAccumulationScheduler, init_args: {scheduling: {0: 0}}}]"): (
        "error: trainer.callbacks: Accumulation factor should be",
    ),
}

# Command line → what the line must hold.
CASES: dict[tuple[str, ...], tuple[str, ...]] = {
    (): ("a subcommand is missing", "fit, validate, test, predict"),
    ("fitt",): ("'fitt' is not a subcommand", "did you mean fit?"),
    ("fit",): ("model: nothing is configured", "--config field.yaml"),
    ("fit", "--config", "debug.yaml"): ("model: nothing is configured",),
    ("fit", "--config"): ("--config: a value is missing",),
    ("fit", "--config", "feld.yaml"): ("no file feld.yaml", "did you mean field.yaml?"),
    ("fit", "--config", "zzz"): ("no file zzz", "there are bf16.yaml"),
    (*FIELD, "junk"): ("'junk'", "--name value"),
    (*FIELD, "--foo"): ("--foo: a value is missing",),
    # keys that are none, at each level
    (*FIELD, "--modl.lr", "1"): ("--modl is not a key", "did you mean model?"),
    (*FIELD, "--model.lrr", "1"): ("--model.lrr is not a key", "did you mean model.lr?"),
    (*FIELD, "--model.init_args.lrr", "1"): ("--model.lrr", "did you mean model.lr?"),
    (*FIELD, "--model.modulator.alphamax", "1"): ("is not a key", "did you mean model.modulator.alpha_max?"),
    (*FIELD, "--model.modulator.stream", "1"): ("--model.modulator.stream is not a key",),
    (*FIELD, "--data.batchsize", "1"): ("is not a key", "did you mean data.batch_size?"),
    (*FIELD, "--trainer.max_epoch", "1"): ("is not a key", "did you mean trainer.max_epochs?"),
    (*FIELD, "--checkpoint.every_n_step", "1"): ("is not a key", "did you mean checkpoint.every_n_train_steps?"),
    (*FIELD, "--ckpt_path", "x.ckpt"): ("ckpt_path", "--resume DIR"),
    # keys without the mapping that they are in
    (*FIELD, "--lr", "1e-4"): ("--lr is not a key; did you mean model.lr?",),
    (*FIELD, "--max_epochs", "3"): ("--max_epochs is not a key; did you mean trainer.max_epochs?",),
    (*FIELD, "--batch_size", "8"): ("--batch_size is not a key; did you mean data.batch_size?",),
    # an encoder writes no lemmas
    (*ENCODER, "--model.objective.task", "0.1"): ("model.objective: this RelationalObjective with task 0.1 needs",),
    (*ENCODER, "--model.objective", "LemmaObjective"): ("model.objective: this LemmaObjective needs the loss",),
    (*ENCODER, "--model.backbone", "/nowhere"): ("model.backbone: no folder /nowhere",),
    (*ENCODER, "--model.cache", "memory"): ("--model.cache is not a key",),
    ("predict", *ENCODER[1:]): ("predict: an encoder writes no answers",),
    # types
    (*FIELD, "--model.lr", "abc"): ("model.lr is abc; it must be a number above 0",),
    (*FIELD, "--model.layers", "foo"): ("model.layers is foo", "all or a list"),
    (*FIELD, "--model.backbone_dtype", "float16"): ("float32 or bfloat16",),
    (*FIELD, "--model.compile", "maybe"): ("model.compile is maybe; it must be true or false or reduce-overhead",),
    (*FIELD, "--data.batch_size", "1.5"): ("data.batch_size is 1.5; it must be an integer of at least 1",),
    (*FIELD, "--data.matching", "foo"): ("single_token or all",),
    (*FIELD, "--trainer.max_epochs", "abc"): (
        "trainer.max_epochs is abc; it must be an integer of at least -1 or null",
    ),
    (*FIELD, "--trainer.precision", "8"): ("trainer.precision is 8", "bf16-mixed"),
    (*FIELD, "--trainer.precision", "bf16-true"): ("trainer.precision is bf16-true", "--config bf16.yaml"),
    (*FIELD, "--trainer.precision", "16-true"): ("trainer.precision is 16-true", "--config bf16.yaml"),
    (*FIELD, "--trainer.precision", "64"): ("trainer.precision is 64, which casts what learns", "--config bf16.yaml"),
    (*FIELD, "--trainer.precision", "transformer-engine"): ("trainer.precision is transformer-engine", "bf16.yaml"),
    (*FIELD, "--trainer.plugins", "lightning.pytorch.plugins.HalfPrecision"): ("HalfPrecision", "--config bf16.yaml"),
    (*FIELD, "--relational.pairs", "foo"): ("relational.pairs is foo; it must be an integer of at least 2 or all",),
    (*FIELD, "--pentachoron.reference", "bnad"): ("pentachoron.reference is bnad", "band"),
    (*FIELD, "--report.figures", "maybe"): ("report.figures is maybe; it must be true or false",),
    # classes
    (*FIELD, "--model", "evil.Foo"): ("model: evil.Foo is none of modulators.AdaptedT5, modulators.ModulatedT5",),
    (*FIELD, "--model", "datamodules.WordNetDataModule"): ("is none of modulators.AdaptedT5, modulators.ModulatedT5",),
    (*WAVE, "--model.attention.kind", "rop"): ("model.attention.kind is rop; it must be one of interference, rope",),
    (*WAVE, "--model.attention.normalise", "sum", "--model.attention.impl", "sdpa"): (
        "model.attention.impl is sdpa, but normalise is sum",
    ),
    (*WAVE, "--model.attention.phase", "source", "--model.attention.impl", "chunked"): ("model.attention.", "chunked"),
    (*WAVE, "--model.attention.normalise", "energy", "--model.attention.terms", "cross"): ("needs terms: full",),
    (*WAVE, "--model.heads", "3"): ("model.d_model is 64, which 3 heads do not divide",),
    (*WAVE, "--model.loss.harmonic", "1", "--model.embedding.amplitude", "fixed"): ("model.loss.harmonic is 1",),
    (*WAVE, "--model.embedding.kind", "table", "--model.embedding.anneal.steps", "5"): (
        "model.embedding.anneal.steps",
    ),
    (*WAVE, "--model.optimizer.projct.side", "none"): ("did you mean model.optimizer.project",),
    (*WAVE, "--model.optimizer.project.side", "gradient"): ("model.optimizer.project.rank is null",),
    (*WAVE, "--model.writing.top_p", "2"): ("model.writing.top_p is 2",),
    (*WAVE, "--data.context", "60"): ("data.batch_tokens is 1024; it must be a multiple of data.context, 60",),
    (*WAVE, "--data.corpus", "kvj"): ("data.corpus: 'kvj' is neither", "did you mean kjv?"),
    (*WAVE, "--data.vocab_size", "200"): ("data.vocab_size is 200; it must be at least 257",),
    (*WAVE, "--data", "WordNetDataModule"): (
        "data is a WordNetDataModule, and model a WaveLM; it must be TextDataModule",
    ),
    (*FIELD, "--data", "TextDataModule"): ("data is a TextDataModule, and model a ModulatedT5",),
    (*FIELD, "--data", "modulators.ModulatedT5"): ("is none of datamodules.GlossDataModule",),
    (*FIELD, "--model.modulator", "evil.Foo"): ("evil.Foo is none of modulators.FieldModulator",),
    (*FIELD, "--model.modulator", "modulators.FeildModulator"): ("did you mean modulators.FieldModulator?",),
    (*FIELD, "--model.modulator", "torch.nn.Linear"): ("torch.nn.Linear is none of",),
    (*FIELD, "--trainer.callbacks", "evil.Foo"): ("trainer.callbacks: evil.Foo is none of", "EarlyStopping"),
    # numbers out of range
    (*FIELD, "--seed_everything", "-3"): ("seed_everything is -3; it must be", "at least 0"),
    (*FIELD, "--model.lr", "-1"): ("model.lr is -1; it must be a number above 0",),
    (*FIELD, "--model.weight_decay", "-1"): ("model.weight_decay is -1; it must be a number of at least 0",),
    (*FIELD, "--model.layers", "[3,99]"): ("model.layers: layer 99 does not exist; the encoder has 6 layers",),
    (*FIELD, "--model.layers", "[]"): ("model.layers is []",),
    (*FIELD, "--model.modulator.expert_ks", "[0]"): ("model.modulator.expert_ks is [0]",),
    (*FIELD, "--model.modulator.gate=source", "--model.modulator.initial_alpha=0.9"): (
        "model.modulator: initial_alpha is 0.9",
        "alpha_max (0.35)",
    ),
    (*FIELD, "--model.modulator.gate", "centered"): ("model.modulator.gate is centered; it must be source or centred",),
    (*FIELD, "--model.modulator.gate=source", "--model.modulator.features=linear"): (
        "model.modulator: features is linear; the gate must be centred",
    ),
    (*FIELD, "--model.modulator.gate", "centred", "--model.modulator.validity_gate", "true"): (
        "model.modulator: validity_gate is true; a centred gate has no validity",
    ),
    (*FIELD, "--model.modulator.null_space_fraction", "1.5"): ("model.modulator.null_space_fraction is 1.5",),
    (*LERP, "--model.geometry.kind", "shufled"): ("model.geometry.kind is shufled", "one of wordnet, shuffled, random"),
    (*LERP, "--model.geometry.anchor", "all"): ("is not a key", "did you mean model.geometry.anchors?"),
    (*LERP, "--model.geometry.n_anchors", "1"): ("model.geometry.n_anchors is 1; it must be an integer of at least 2",),
    (*FIELD, "--model.geometry.kind", "shuffled"): ("model.geometry: a FieldModulator has no geometric embeddings",),
    (*FIELD, "--relational.bootstrap", "7"): ("relational.bootstrap is 7; it must be 0 or an integer of at least 40",),
    (*FIELD, "--model.schedule", "linear"): ("model.schedule is linear; it must be cosine or constant",),
    (*FIELD, "--data.order_seed", "-1"): ("data.order_seed is -1; it must be an integer of at least 0",),
    (*LERP, "--model.modulator.n_geometric_dims", "-1"): ("model.modulator.n_geometric_dims is -1",),
    (*FIELD, "--data.batch_size", "-1"): ("data.batch_size is -1; it must be an integer of at least 1",),
    (*FIELD, "--data.val_fraction", "1.5"): (
        "data.val_fraction is 1.5; it must be a number between 0 and 1 (exclusive)",
    ),
    (*FIELD, "--data.val_fraction", "0"): ("data.val_fraction is 0; it must be a number between 0 and 1 (exclusive)",),
    (*FIELD, "--data.test_fraction", "1"): ("data.test_fraction is 1; it must be a number of at least 0 and below 1",),
    (*FIELD, "--data.test_fraction", "0.95"): ("data.val_fraction is 0.1 and data.test_fraction 0.95; their sum",),
    # what is reported is not what is chosen by
    (*FIELD, "--checkpoint.monitor", "relational/held_out/nouns/pearson_lift", "--checkpoint.mode", "max"): (
        "checkpoint.monitor is relational/held_out/nouns/pearson_lift: it would choose by the pairs that the report's",
        "set data.test_fraction, and name relational/validation/nouns/pearson_lift",
    ),
    (*FIELD, "--checkpoint.monitor", "relational/validation/pearson_lift"): (
        "checkpoint.monitor is relational/validation/pearson_lift: there are such pairs only with a test part",
    ),
    (*FIELD, "--trainer.max_epochs", "-5"): ("trainer.max_epochs is -5; it must be an integer of at least -1",),
    # nothing to train, whatever the schedule
    **{
        (*FIELD, "--model.schedule", schedule, f"--trainer.{key}", "0"): (
            f"trainer.{key} is 0; a fit over 0 steps trains nothing: give it more, or use validate",
        )
        for key in ("max_epochs", "max_steps", "limit_train_batches")
        for schedule in ("cosine", "constant")
    },
    (*FIELD, "--trainer.accumulate_grad_batches", "0"): ("trainer.accumulate_grad_batches is 0",),
    (*FIELD, "--trainer.limit_val_batches", "1.5"): ("trainer.limit_val_batches is 1.5", "a share between 0 and 1"),
    (*FIELD, "--checkpoint.every_n_train_steps", "-1"): ("checkpoint.every_n_train_steps is -1",),
    (*FIELD, "--checkpoint.dirpath", "ckpt"): (
        "checkpoint.dirpath is ckpt; a run and its checkpoints lie in one",
        "--output",
    ),
    (*FIELD, "--trainer.default_root_dir", "d"): ("trainer.default_root_dir is d; a run and", "name that folder with"),
    (*FIELD, "--alpha_convergence.window", "0"): ("alpha_convergence.window is 0",),
    (*FIELD, "--relational.pairs", "1"): ("relational.pairs is 1",),
    (*FIELD, "--pentachoron.tolerance", "0"): ("pentachoron.tolerance is 0",),
    (*PRETRAIN, "--model.d_model", "-1"): ("model.d_model is -1",),
    (*PRETRAIN, "--data.pair_fraction", "2"): (
        "data.pair_fraction is 2; it must be a number of at least 0 and below 1",
    ),
    (*PRETRAIN, "--data.vocab_size", "7"): ("data.vocab_size is 7; it must be at least 104",),
    # devices
    (*FIELD, "--trainer.devices", "-3"): ("trainer.devices is -3",),
    (*FIELD, "--trainer.devices", "abc"): ("trainer.devices is abc",),
    (*FIELD, "--trainer.accelerator", "foo"): ("trainer.accelerator is foo; it must be one of auto, cpu",),
    # what a trainer is built of
    (*FIELD, "--trainer.logger.name", "alpha: 0.5"): ("trainer.logger: no class is named", "callbacks.RunWandb, CSVL"),
    (*FIELD, "--trainer.logger", "a: 0.5"): ("trainer.logger: no class is named",),
    (*FIELD, "--trainer.logger", "CSVLogger"): ("trainer.logger.save_dir is missing",),
    (*FIELD, "--trainer.logger", "[TensorBoardLogger]"): ("trainer.logger.save_dir is missing",),
    (*FIELD, "--trainer.logger", "WandbLogger", "--trainer.logger.offline", "maybe"): (
        "trainer.logger.offline is maybe; it must be true or false",
    ),
    (*FIELD, "--trainer.logger", "WandbLogger", "--trainer.logger.project", "a/b"): ("trainer.logger.project is a/b",),
    (*FIELD, "--trainer.logger", "WandbLogger", "--trainer.logger.id", "a:b"): (
        "trainer.logger.id is a:b",
        "without :",
    ),
    (*WANDB, "--trainer.logger.class_path", "RunWand"): ("did you mean callbacks.RunWandb?",),
    (*WANDB, "--trainer.logger.project", "a/b"): (
        "trainer.logger.project is a/b; it must be text of 1 to 128",
        "/ \\ #",
    ),
    (*WANDB, "--trainer.logger.project", ""): ("trainer.logger.project is ''",),
    (*WANDB, "--trainer.logger.project", "null"): ("trainer.logger.project is null",),
    (*WANDB, "--trainer.logger.entity", "a b/c"): ("trainer.logger.entity is a b/c; it must be text of letters",),
    (*WANDB, "--trainer.logger.name", "n" * 129): ("trainer.logger.name is nnn", "text of 1 to 128 characters or null"),
    (*WANDB, "--trainer.logger.tags", "a"): ("trainer.logger.tags is a; it must be a list",),
    (*WANDB, "--trainer.logger.tags", f"[{'t' * 65}]"): ("trainer.logger.tags is", "text of 1 to 64 characters each"),
    (*WANDB, "--trainer.logger.mode", "off"): ("trainer.logger.mode is off; it must be one of online, offline",),
    (*FIELD, "--trainer.callbacks", "[EarlyStopping]"): ("trainer.callbacks.monitor is missing; it must be text",),
    (*FIELD, "--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.mode", "mn"): (
        "mode is mn; it must be min or",
    ),
    (*FIELD, "--trainer.callbacks", "[{monitor: val/loss}]"): (
        "trainer.callbacks: no class is named",
        "EarlyStopping,",
    ),
    (*FIELD, "--trainer.callbacks", "StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "-1"): (
        "trainer.callbacks.swa_lrs is -1; it must be a number above 0",
    ),
    (*FIELD, "--trainer.plugins", "MixedPrecision"): ("trainer.plugins.precision is missing; it must be 16-mixed or",),
    (*FIELD, "--trainer.plugins", "MPIEnvironment"): ("trainer.plugins: ", "needs mpi4py, which is not installed"),
    (*FIELD, "--trainer.profiler", "xla"): ("trainer.profiler: xla is none of simple,",),
    (*FIELD, "--trainer.max_time", "{foo: 3}"): ("trainer.max_time.foo is not a key; there are days, hours,",),
    (*FIELD, "--trainer.val_check_interval", "{hours: a}"): ("trainer.val_check_interval.hours is a",),
    (*FIELD, "--model.backbone", "null"): ("model.backbone is null; it must be text",),
    **LATE_PARTS,
    # files and folders
    (*FIELD, "--model.backbone", "/nowhere/t5"): ("model.backbone: no folder /nowhere/t5",),
    (*FIELD, "--model.backbone", "nobody/nothing"): ("model.backbone: 'nobody/nothing' cannot be loaded",),
    (*LERP, "--model.modulator.geometry", "/nowhere.npy"): ("model.modulator: geometry /nowhere.npy",),
    (*FIELD, "--data.nltk_data", "/nowhere"): ("data.nltk_data: /nowhere: no WordNet here", "corpora/wordnet.zip"),
    ("predict", *FIELD[1:], "--data.prompts", "/nowhere.txt"): ("data.prompts: /nowhere.txt cannot be read",),
    (*FIELD, "--resume", "/nowhere"): ("--resume: no folder /nowhere",),
    ("fit", "--resume", "."): ("--resume: . has no config.yaml", "--config"),
    (*FIELD, "--resume", "."): ("--resume: no checkpoint in checkpoints",),
    (*FIELD, "--output", "file/run"): ("--output: file/run cannot be a folder", "is a file"),
}
