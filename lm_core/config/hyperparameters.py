"""``Hyperparameters``: the one table.

Everything that speaks of hyperparameters reads this table: the check of every statement, the gin
binding each key becomes, the record of a run. A constructor repeats its own defaults, so that
it works without gin, and a test compares every pair.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator

from lm_core.config.fields import (
    LARGEST_FACTOR,
    LARGEST_SIZE,
    LARGEST_STEP,
    LARGEST_VOCABULARY,
    SMALLEST_VOCABULARY,
    HooksTable,
    field,
    model,
    sampling,
    training,
)
from lm_core.randomness import LARGEST_SEED

# What the learning rate does after warm-up.
Shape = Literal["constant", "linear", "cosine", "warmup_stable_decay"]


class BrokenRule(NamedTuple):
    """Two keys whose values do not fit, and what is wrong between them, to be read in a row."""

    key: str
    relation: str
    other_key: str


class Hyperparameters(BaseModel):
    """Every hyperparameter of the lab, with its type, default, range and meaning.

    Types are strict: ``True`` and ``"6"`` are no integers, an integer is a fine number, infinity
    and not-a-number are neither. Ranges refuse what cannot work and leave the merely unwise alone.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    n_layers: int = model(
        4,
        "n_layers",
        ge=1,
        le=LARGEST_SIZE,
        usual="2 to 48",
        change="more for a larger corpus and a longer run, fewer to try ideas quickly",
        interactions="parameters, time and memory grow in proportion",
    )
    """Number of Transformer blocks, each attention and an MLP."""

    d_model: int = model(
        256,
        "d_model",
        ge=1,
        le=LARGEST_SIZE,
        usual="64 to 4096",
        change="wider for a larger corpus; with d_ff in proportion, parameters and time of the "
        "blocks grow with its square",
        interactions="a multiple of n_heads; d_ff usually follows it; wider models want a smaller "
        "learning_rate",
    )
    """Width of the residual stream: the numbers that stand for one token in each block."""

    n_heads: int = model(
        4,
        "n_heads",
        ge=1,
        le=LARGEST_SIZE,
        usual="so many that each is 32 to 128 wide",
        change="together with d_model, to keep the width of a head",
        interactions="must divide d_model; a head is d_model / n_heads wide; costs no parameters",
    )
    """Attention heads in each block, each with a pattern of its own."""

    d_ff: int = model(
        1024,
        "d_ff",
        ge=1,
        le=LARGEST_SIZE,
        usual="four times d_model",
        change="together with d_model",
        interactions="at four times d_model, the MLPs hold two thirds of a block's parameters",
    )
    """Width of the hidden layer of each MLP."""

    dropout: float = model(
        0.1,
        "dropout",
        ge=0,
        lt=1,
        usual="0 to 0.3",
        change="0 when the corpus is seen a few times at the most; more when the validation loss "
        "rises while the training loss still falls",
        interactions="needed with many passes over the corpus (max_steps x batch_size x "
        "max_seq_len); costs time, since every mask is drawn anew; rounded to a multiple of "
        "1/65536",
    )
    """Share of activations zeroed in training, on embeddings, attention weights and both sublayers'
    outputs, against learning the corpus by heart."""

    max_seq_len: int = model(
        256,
        "max_seq_len",
        ge=1,
        le=LARGEST_SIZE,
        usual="64 to 4096",
        change="longer where what comes next depends on what stood far before",
        interactions="a step sees batch_size x max_seq_len tokens; attention's cost grows with its "
        "square; both parts of the corpus need max_seq_len + 1 tokens",
    )
    """Context length in tokens, and the length of the windows that are trained on."""

    position: Literal["learned", "rope"] = model(
        "learned",
        "position",
        usual="rope in models of the last years",
        change="rope learns faster, and needs no parameters",
        interactions="rope needs heads of an even width, d_model / n_heads",
    )
    """How a block knows where a token stands. learned: a vector for each of max_seq_len places is
    added to the embedding. rope: queries and keys are rotated by angles that grow with the place,
    so that they see the distance between two tokens."""

    norm: Literal["layernorm", "rmsnorm"] = model(
        "layernorm",
        "norm",
        usual="rmsnorm in models of the last years",
        change="rmsnorm is a little faster and learns as well",
        interactions="rmsnorm has no biases, whatever bias says",
    )
    """What the input of each sublayer and of the head is normed by. layernorm: mean and variance.
    rmsnorm: the root of the mean square."""

    activation: Literal["gelu", "gelu_tanh", "relu_squared", "swiglu"] = model(
        "gelu",
        "activation",
        usual="swiglu in large models, relu_squared in small ones that are trained fast",
        change="relu_squared costs less time than gelu; swiglu learns more in each step; gelu_tanh "
        "to go on with OpenAI's weights of GPT-2",
        interactions="swiglu has a third matrix of d_ff x d_model in each block: with two thirds "
        "of the d_ff it has as many parameters as the others",
    )
    """What the hidden layer of each MLP makes of its input: the exact GELU, its approximation by a
    hyperbolic tangent, the square of what is above zero, or SwiGLU, one half of the layer times the
    SiLU of the other."""

    qk_norm: bool = model(
        False,
        "qk_norm",
        usual="true with large learning rates",
        change="true where training is not stable, or to try a larger learning_rate",
        interactions="costs no parameters; with position rope it comes before the rotation",
    )
    """Whether each head's queries and keys are divided by the root of their mean square, which
    keeps attention from growing sharp all at once."""

    tie_embeddings: bool = model(
        True,
        "tie_embeddings",
        usual="true in small models, false in large ones",
        change="false where the vocabulary is small, or the model is large",
        interactions="false adds as many parameters as the token embedding has",
    )
    """Whether the output head is the token embedding. false: it is a matrix of its own."""

    bias: bool = model(
        True,
        "bias",
        usual="false in models of the last years",
        change="false is a little faster and learns as well",
        interactions="norm rmsnorm has no biases in any case",
    )
    """Whether linear layers and LayerNorms have biases; the output head never has."""

    logit_softcap: float | None = model(
        None,
        "logit_softcap",
        ge=1e-3,
        le=LARGEST_FACTOR,
        usual="15 to 30",
        change="set it where training is not stable, or logits grow without end",
        interactions="z_loss is another way to keep logits small",
    )
    """Bound that the logits come near and never pass: c tanh(logit / c). null: there is none."""

    max_steps: int = training(
        10_000,
        "max_steps",
        ge=1,
        le=LARGEST_STEP,
        usual="500 to 100000",
        change="as long as the validation loss still falls",
        interactions="--max_steps overrides it; a resume may change it",
    )
    """Optimizer steps in the whole run."""

    batch_size: int = training(
        16,
        "batch_size",
        ge=1,
        le=LARGEST_SIZE,
        usual="8 to 512",
        change="larger for steadier gradients, smaller where memory is short",
        interactions="time and memory of a step grow in proportion; a larger batch bears a larger "
        "learning_rate",
    )
    """Windows of the corpus in each step's batch."""

    accumulation_steps: int = training(
        1,
        "accumulation_steps",
        ge=1,
        le=LARGEST_SIZE,
        usual="1 to 64",
        change="more where the activations of a batch do not fit into memory",
        interactions="divides batch_size; gradients are those of the whole batch, but for "
        "rounding, and a step takes a little longer",
    )
    """Equal parts of a batch that are computed one after the other, each with memory for itself.
    Several processes share each batch, and compute their shares in as many parts."""

    optimizer: Literal["adamw", "muon"] = training(
        "adamw",
        "optimizer",
        usual="adamw; muon where steps are to be few",
        change="muon needs fewer steps, and each takes a little longer",
        interactions="muon_learning_rate and muon_momentum are Muon's; learning_rate, beta1 and "
        "beta2 are AdamW's in both cases; weight_decay is that of both",
    )
    """What makes updates of gradients. adamw: AdamW, for all parameters. muon: Muon for the
    matrices of the blocks, AdamW for embeddings, norms, biases and the output head."""

    learning_rate: float = training(
        3e-4,
        "learning_rate",
        gt=0,
        usual="1e-4 to 3e-3",
        change="before anything else; too small learns slowly, too large diverges",
        interactions="smaller for wider models (d_model), larger for larger batches (batch_size); "
        "learning_rate_schedule and warmup_steps lower it in some steps",
    )
    """Step size of AdamW, the largest of the run."""

    learning_rate_schedule: Shape = training(
        "constant",
        "learning_rate_schedule",
        usual="cosine, or linear down to zero",
        change="where it falls, the loss at the end is mostly better than with constant",
        interactions="falls until decay_steps to min_learning_rate_ratio times the learning rates "
        "(learning_rate and muon_learning_rate); warmup_steps come first in each of them",
    )
    """How the learning rate falls over the run. constant: not at all. linear and cosine: from the
    end of warm-up on, in a line or half a cosine. warmup_stable_decay: in a line, in the last part
    alone, decay_share."""

    warmup_steps: int = training(
        0,
        "warmup_steps",
        ge=0,
        le=LARGEST_STEP,
        usual="0, or a hundredth to a tenth of max_steps",
        change="more where training diverges early on or the learning rate is large",
        interactions="at most decay_steps",
    )
    """Steps in which the learning rate rises in a line, to reach its full size in the last of
    them."""

    decay_steps: int | None = training(
        None,
        "decay_steps",
        ge=1,
        le=LARGEST_STEP,
        usual="null",
        change="set it to stop in the middle of a curve, or to go on behind its end",
        interactions="means nothing with learning_rate_schedule constant; null becomes max_steps, "
        "or warmup_steps if they are more, when a run starts, and stays so when it goes on",
    )
    """The step in which the learning rate is at its smallest, and stays there. null: max_steps."""

    decay_share: float = training(
        0.2,
        "decay_share",
        gt=0,
        le=1,
        usual="0.1 to 0.4",
        change="larger for short runs",
        interactions="means something with learning_rate_schedule warmup_stable_decay only",
    )
    """Share of decay_steps, at their end, in which warmup_stable_decay falls."""

    min_learning_rate_ratio: float = training(
        0.1,
        "min_learning_rate_ratio",
        ge=0,
        le=1,
        usual="0 to 0.1",
        change="0 gives the best loss at decay_steps, more learns on after them",
        interactions="means nothing with learning_rate_schedule constant",
    )
    """The smallest learning rate, as a share of the largest."""

    muon_learning_rate: float = training(
        0.02,
        "muon_learning_rate",
        gt=0,
        usual="0.005 to 0.05",
        change="before anything else, with optimizer muon",
        interactions="means something with optimizer muon only; learning_rate_schedule and "
        "warmup_steps lower it as they do learning_rate",
    )
    """Step size of Muon: about how far a step moves each singular value of a matrix."""

    muon_momentum: float = training(
        0.95,
        "muon_momentum",
        ge=0,
        lt=1,
        usual="0.9 to 0.95",
        change="rarely",
        interactions="means something with optimizer muon only; averages over about "
        "1 / (1 - muon_momentum) steps",
    )
    """Muon's decay of the mean of the gradient."""

    weight_decay: float = training(
        0.1,
        "weight_decay",
        ge=0,
        usual="0 to 0.1; with muon up to 1",
        change="smaller for short runs, larger against learning the corpus by heart",
        interactions="a step takes the share learning_rate x weight_decay off the matrices "
        "(muon_learning_rate x weight_decay off those of Muon)",
    )
    """Decoupled weight decay, on matrices only, not on norms, biases and embeddings."""

    beta1: float = training(
        0.9,
        "beta1",
        ge=0,
        lt=1,
        usual="0.9",
        change="rarely",
        interactions="averages over about 1 / (1 - beta1) steps",
    )
    """AdamW's decay of the mean of the gradient."""

    beta2: float = training(
        0.95,
        "beta2",
        ge=0,
        lt=1,
        usual="0.95 to 0.999",
        change="closer to 1 for small batches, whose gradients are noisy",
        interactions="averages over about 1 / (1 - beta2) steps, so it wants more steps than that",
    )
    """AdamW's decay of the mean of the squared gradient."""

    max_grad_norm: float | None = training(
        None,
        "max_grad_norm",
        gt=0,
        usual="1",
        change="set it where single batches throw training back",
        interactions="grad_norm in metrics.jsonl is the norm before; update hooks on gradients "
        "come before it; Muon's steps are of one size in any case, along a mean of these",
    )
    """Largest norm of all gradients together: larger ones are scaled down to it. null: none are."""

    label_smoothing: float = training(
        0.0,
        "label_smoothing",
        ge=0,
        lt=1,
        usual="0 to 0.1",
        change="more against learning the corpus by heart; it makes probabilities less sharp",
        interactions="train_loss and val_loss in metrics.jsonl are without it",
    )
    """Share of the probability that a target gives to all tokens alike."""

    z_loss: float = training(
        0.0,
        "z_loss",
        ge=0,
        le=LARGEST_FACTOR,
        usual="0, or 1e-4",
        change="set it where logits drift away in long runs",
        interactions="train_loss in metrics.jsonl is without it; logit_softcap is another way",
    )
    """Factor of the squared logarithm of the softmax's normaliser, which is added to the loss."""

    ema_decay: float | None = training(
        None,
        "ema_decay",
        gt=0,
        lt=1,
        usual="0.99 to 0.9999",
        change="set it for a better loss where the learning rate does not fall to zero",
        interactions="averages over about 1 / (1 - ema_decay) steps; a checkpoint is a third to a "
        "half larger",
    )
    """Decay of an exponential average of the weights over the steps. With it, evaluations, samples
    and the model in checkpoints are of the average. null: there is none."""

    max_skipped_batches: int = training(
        0,
        "max_skipped_batches",
        ge=0,
        le=LARGEST_STEP,
        usual="0 to 10",
        change="a few where single batches of a text are known to overflow",
        interactions="many of them are a sign of a learning_rate that is too large; a resume may "
        "change it",
    )
    """How many batches with a loss or gradient norm that is not finite may be left out in the whole
    run. The next one ends it, before a parameter is touched."""

    precision: Literal["auto", "float32", "bfloat16"] = training(
        "auto",
        "precision",
        usual="auto",
        change="float32 to compare runs across machines, bfloat16 to halve the memory of "
        "activations",
        interactions="auto follows the device; a run keeps what was chosen at its start",
    )
    """What matrix products are computed in. auto: bfloat16 where the device multiplies it several
    times faster (a GPU; a CPU with AMX or AVX512-BF16), else float32. Weights, gradients and the
    optimizer are in float32 always."""

    device: Literal["auto", "cpu", "cuda", "mps"] = training(
        "auto",
        "device",
        usual="auto",
        change="cpu to leave a GPU to others",
        interactions="decides about precision: auto; on a CPU the same seed gives the same masks "
        "of dropout on every machine; a resume may change it",
    )
    """Where to compute. auto: a GPU that PyTorch finds, CUDA before MPS, else the CPU."""

    compile: bool = training(
        False,
        "compile",
        usual="false",
        change="true for long runs on a GPU",
        interactions="needs a GPU (device); the first step takes up to a minute longer; changes "
        "the last bits of what is learned",
    )
    """Whether PyTorch compiles the model's blocks before the first step. It needs a GPU."""

    parallelism: Literal["auto", "none", "ddp", "fsdp"] = training(
        "auto",
        "parallelism",
        usual="auto",
        change="fsdp where a model with its gradients and optimizer does not fit into each process",
        interactions="means something under torchrun only, where none is refused; batch_size is "
        "that of all processes together; exact_reduction adds up in a way of its own; a resume may "
        "change it, as it may the number of processes",
    )
    """What each of several processes keeps of the model. ddp: all of it (DistributedDataParallel).
    fsdp: a share of parameters, gradients and the optimizer's state (FSDP2). auto: ddp."""

    exact_reduction: bool = training(
        False,
        "exact_reduction",
        usual="false",
        change="true to go on with a run in another number of processes bit for bit, or to compare "
        "runs of different numbers",
        interactions="takes 1, 2, 4 or 8 processes, on CPUs with one thread each, and half as much "
        "time again as they take without it (docs/scaling.md); not with parallelism fsdp",
    )
    """Whether 1, 2, 4 and 8 processes leave the same bits: every batch is cut into eight pieces,
    whose gradients are added up in a fixed tree."""

    seed: int | None = training(
        None,
        "seed",
        ge=0,
        le=LARGEST_SEED,
        usual="null, or small numbers such as 1, 2, 3",
        change="set it to compare two configurations on the same random numbers; give several to "
        "see how much chance matters",
        interactions="sampling_seed is a seed of its own",
    )
    """Seed of initial weights, batches and dropout. null: one is drawn, used and recorded."""

    init_from: str | None = field(
        None,
        "load_initial_weights.init_from",
        "Training",
        min_length=1,
        usual="null, or runs/NAME",
        change="to go on with what a model has learned, on another text or in another way",
        interactions="the hyperparameters of the model and the tokenizer must be those of that "
        "run: --config=runs/NAME/config.yaml has them; max_seq_len may be shorter (with position "
        "rope, longer too), and dropout another",
    )
    """Begin with the weights of another run, of its result, or of the one checkpoint that is named:
    a run directory or the folder of a checkpoint. The optimizer is new, and the first step is 1.
    null: weights are random."""

    hooks: HooksTable | None = training(
        None,
        "hooks",
        usual="null",
        change="to look into training or to change it, without changing code",
        interactions="docs/hooks.md has every hook with its options; --allow_gin_import brings "
        "your own",
    )
    """Forward and update hooks: {forward: [{name, enabled, ...}], update: [{name, enabled, ...}]}.
    null: none."""

    corpus: str | None = field(
        None,
        "load_corpus.path",
        "Dataset",
        min_length=1,
        usual="a path",
        change="to train on a text of your own",
        interactions="--corpus overrides it; the tokenizer must take its characters; docs/data.md "
        "says which files are read, and how",
    )
    """The text: a UTF-8 file, one of JSON lines, a folder (its *.txt and *.jsonl at any depth) or a
    glob, relative to the working directory; .gz and .zst are decompressed. null: the built-in
    corpus, the documentation of Python."""

    text_key: str = field(
        "text",
        "load_corpus.text_key",
        "Dataset",
        min_length=1,
        usual="text, content",
        change="to what the text is called in your data",
        interactions="means nothing where no file of the corpus is of JSON lines",
    )
    """In JSON lines, the key of the text in each object."""

    tokenizer: Literal["ascii", "char", "byte", "bpe"] = field(
        "ascii",
        "Tokenizer.kind",
        "Dataset",
        usual="ascii for English, char or byte for other scripts, bpe for large corpora",
        change="when the text has characters beyond ASCII, or is long",
        interactions="sets the size of the vocabulary; losses per token compare only within one "
        "tokenizer, bits per byte always; bpe needs the package tokenizers",
    )
    """How text becomes tokens. ascii: the 128 characters of ASCII. char: the characters that occur
    in the corpus. byte: the 256 bytes of UTF-8, which take any text. bpe: pieces of words, learned
    from the part that is trained on, or those of tokenizer_file; they take any text too."""

    vocab_size: int = field(
        4096,
        "Tokenizer.vocab_size",
        "Dataset",
        ge=SMALLEST_VOCABULARY,
        le=LARGEST_VOCABULARY,
        usual="1000 to 50000",
        change="larger for a larger corpus and model",
        interactions="only for tokenizer bpe without tokenizer_file; the embedding has d_model "
        "parameters for each token; a short corpus gives fewer tokens",
    )
    """How many tokens bpe learns: 256 bytes, the end of a text, and pieces of words."""

    tokenizer_file: str | None = field(
        None,
        "Tokenizer.file",
        "Dataset",
        min_length=1,
        usual="null",
        change="to use the tokens of another model",
        interactions="only for tokenizer bpe; has a vocab_size of its own",
    )
    """An existing tokenizer.json of byte-level BPE, relative to the working directory, in the place
    of one that is learned. null: one is learned."""

    train_ratio: float = field(
        0.95,
        "split_corpus.train_ratio",
        "Dataset",
        gt=0,
        lt=1,
        usual="0.9 to 0.99",
        change="smaller for a short corpus, so that the validation part says something",
        interactions="the validation part needs max_seq_len + 1 tokens; with split_by document it "
        "is the share of documents, about",
    )
    """Share of the corpus, from its start, that is trained on; the rest is held out for
    validation."""

    split_by: Literal["position", "document"] = field(
        "position",
        "split_corpus.split_by",
        "Dataset",
        usual="position for one text, document for a collection of many",
        change="document to hold out whole documents from everywhere in the corpus",
        interactions="needs several documents: files of text, or lines of JSON; losses compare "
        "only within one way to hold out",
    )
    """What is held out. position: the end of the corpus. document: whole documents, chosen by what
    they say, and the same ones for every seed and order."""

    data_order: Literal["random", "shuffled"] = field(
        "random",
        "Trainer.data_order",
        "Dataset",
        usual="random",
        change="shuffled to see every window equally often",
        interactions="shuffled leaves out what is shorter than max_seq_len + 1 at the end of the "
        "training part",
    )
    """Which windows a batch is made of. random: windows that start anywhere. shuffled: windows that
    follow each other, each once an epoch, in an order of the seed's."""

    eval_cadence: int | None = field(
        None,
        "Trainer.eval_cadence",
        "Evaluation",
        ge=1,
        le=LARGEST_STEP,
        usual="a tenth to a hundredth of max_steps",
        change="set it to see the validation loss fall, and when it no longer does",
        interactions="an evaluation takes the time of a forward pass over the validation part, "
        "1 - train_ratio of the corpus; the best one so far is saved unless checkpoint_cadence is "
        "null and early_stopping_evaluations too",
    )
    """Evaluate every so many steps. null: only after the last step."""

    early_stopping_evaluations: int | None = field(
        None,
        "Trainer.early_stopping_evaluations",
        "Evaluation",
        ge=1,
        le=LARGEST_STEP,
        usual="3 to 10",
        change="set it where the model begins to learn the corpus by heart before max_steps",
        interactions="needs eval_cadence, whose evaluations count, and not one that is only due at "
        "the end of a run; the best checkpoint is kept, whatever checkpoint_cadence says, and is "
        "what --mode=sample and --mode=evaluate take; a resume may change it",
    )
    """Stop after so many evaluations in a row without a better validation loss; the best checkpoint
    is the run's result. null: never."""

    sampling_cadence: int | None = field(
        None,
        "Trainer.sampling_cadence",
        "Sampling",
        ge=1,
        le=LARGEST_STEP,
        usual="as eval_cadence",
        change="set it to see what the model writes as it learns",
        interactions="a sample takes one forward pass for each of sampling_max_length tokens",
    )
    """Write a sample every so many steps, and after the last one. null: never."""

    sampling_temperature: float = sampling(
        1.0,
        "temperature",
        ge=0,
        usual="0.5 to 1",
        change="lower for likelier, more repetitive text; 0 always takes the likeliest token",
        interactions="at 0, sampling_seed, sampling_top_k and sampling_top_p change nothing",
    )
    """Divides the logits before a token is drawn."""

    sampling_prompt: str = sampling(
        "The",
        "prompt",
        min_length=1,
        usual="the beginning of a sentence",
        change="to something that occurs in your corpus",
        interactions="the tokenizer must take its characters",
    )
    """The text that every sample goes on from."""

    sampling_max_length: int = sampling(
        100,
        "max_length",
        ge=1,
        le=LARGEST_SIZE,
        usual="50 to 500",
        change="as long as you want to read",
        interactions="beyond max_seq_len the oldest tokens leave the context, and it gets slower",
    )
    """New tokens in a sample, after the prompt."""

    sampling_seed: int = sampling(
        42,
        "seed",
        ge=0,
        le=LARGEST_SEED,
        usual="any",
        change="to see another sample of the same model",
        interactions="seed, the run's own, changes no draw of a sample",
    )
    """Seed of the sampler: the same seed and weights give the same text."""

    sampling_num_samples: int = sampling(
        1,
        "num_samples",
        ge=1,
        le=LARGEST_SIZE,
        usual="1 to 16",
        change="more to see the range of what the model writes",
        interactions="several take little longer than one, since they are written in one batch; "
        "with sampling_temperature 0 all of them are equal",
    )
    """How many samples are written each time, from the same prompt. The first is the one that would
    be written alone."""

    sampling_top_k: int | None = sampling(
        None,
        "top_k",
        ge=1,
        usual="20 to 200, with vocabularies of thousands",
        change="set it to keep unlikely tokens out",
        interactions="a number above the size of the vocabulary means all; sampling_top_p works on "
        "what is left",
    )
    """Sample only from the k likeliest tokens. null: from all."""

    sampling_top_p: float | None = sampling(
        None,
        "top_p",
        gt=0,
        le=1,
        usual="0.9 to 0.95",
        change="set it to keep unlikely tokens out where the model is sure, and in where it is not",
        interactions="works on what sampling_temperature and sampling_top_k leave",
    )
    """Sample only from the likeliest tokens that together hold this probability. null: from all."""

    checkpoint_cadence: int | None = field(
        1000,
        "Trainer.checkpoint_cadence",
        "Checkpointing",
        ge=1,
        le=LARGEST_STEP,
        usual="so that a few minutes lie between two",
        change="smaller where the machine may fail, null for short runs",
        interactions="each takes the disk space that --mode=plan tells",
    )
    """Save every so many steps, at every evaluation that is the best so far, and after the last
    step. null: only after the last step."""

    keep_checkpoints: int | None = field(
        3,
        "Trainer.keep_checkpoints",
        "Checkpointing",
        ge=1,
        le=LARGEST_STEP,
        usual="1 to 5",
        change="more, or null, to look at how a model learned; 1 where the disk is small",
        interactions="eval_cadence decides how often there is a best one, and with "
        "checkpoint_cadence null it is not saved, unless early_stopping_evaluations is set; a "
        "resume may change it, from its next save on",
    )
    """How many of the newest checkpoints stay; the one with the best validation loss stays besides.
    null: all of them stay."""

    @model_validator(mode="after")
    def _values_fit_each_other(self) -> Self:
        for key, relation, other in broken_rules(self.model_dump()):
            mine, theirs = getattr(self, key), getattr(self, other)
            raise ValueError(f"{key} {mine} {relation} {other} {theirs}")
        return self


KEYS: tuple[str, ...] = tuple(Hyperparameters.model_fields)


def broken_rules(values: Mapping[str, Any]) -> list[BrokenRule]:
    """The rules between values that are good one by one.

    Args:
        values: Every key of the table with its value.

    Returns:
        What is broken, an empty list when all values fit each other.
    """
    broken = []
    if values["d_model"] % values["n_heads"]:
        broken.append(BrokenRule("d_model", "is not divisible by", "n_heads"))
    d_head = values["d_model"] // values["n_heads"]
    if values["position"] == "rope" and d_head % 2:
        relation = f"makes heads {d_head} wide, which position rope cannot rotate in pairs, with"
        broken.append(BrokenRule("d_model", relation, "n_heads"))
    if values["batch_size"] % values["accumulation_steps"]:
        broken.append(BrokenRule("batch_size", "is not divisible by", "accumulation_steps"))
    if values["exact_reduction"] and values["parallelism"] == "fsdp":
        relation = "needs whole gradients in every process, which there are not with"
        broken.append(BrokenRule("exact_reduction", relation, "parallelism"))
    if values["decay_steps"] is not None and values["warmup_steps"] > values["decay_steps"]:
        broken.append(BrokenRule("warmup_steps", "is more than", "decay_steps"))
    if values["early_stopping_evaluations"] is not None and values["eval_cadence"] is None:
        relation = "needs evaluations while it trains, and there are none with"
        broken.append(BrokenRule("early_stopping_evaluations", relation, "eval_cadence"))
    if values["tokenizer_file"] is not None and values["tokenizer"] != "bpe":
        broken.append(BrokenRule("tokenizer_file", "is for bpe, and not for", "tokenizer"))
    if values["tokenizer"] == "ascii" and not values["sampling_prompt"].isascii():
        broken.append(BrokenRule("sampling_prompt", "has characters unknown to", "tokenizer"))
    return broken
