"""Neural models of a few thousand random weights, saved as real ones are: `python -m tests.neural.tiny DIR`.

Run as a process of its own, so that PyTorch and its warnings stay out of the tests'. What they make is
noise; that the real loading and rendering code makes something of the right shape is what is tested.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "es", "bn")
TEXT = ["the weather is very nice today", "el tiempo es muy bueno hoy", "she bought three apples and milk"]
SMALL = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
}  # fmt: skip


def main(folder: Path) -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    for make in (musicgen, stable_audio, whisper, m2m100, madlad, vits, demucs):
        made = folder / make.__name__
        made.mkdir(parents=True)
        make(made)


def letters(folder: Path, *, more: tuple[str, ...] = (), **limits: int) -> Any:
    """A tokenizer that knows the letters one by one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "</s>", "<unk>", *more, *"abcdefghijklmnopqrstuvwxyz0123456789 .,"]
    vocabulary = {token: number for number, token in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(more),
        **limits,
    )
    fast.save_pretrained(folder)
    return fast


def musicgen(folder: Path) -> None:
    import transformers as t

    text = t.T5Config(vocab_size=64, d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8)
    audio = t.EncodecConfig(
        target_bandwidths=[2.0], sampling_rate=16000, audio_channels=1, normalize=False, num_filters=4,
        hidden_size=8, codebook_size=32, codebook_dim=8, upsampling_ratios=[8, 5, 4, 2], num_lstm_layers=1,
    )  # fmt: skip
    decoder = t.MusicgenDecoderConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32,
        num_codebooks=audio.num_quantizers, audio_channels=1, pad_token_id=32, bos_token_id=32,
    )  # fmt: skip
    model = t.MusicgenForConditionalGeneration(
        t.MusicgenConfig(
            text_encoder=text.to_dict(), audio_encoder=audio.to_dict(), decoder=decoder.to_dict()
        )
    )
    for name in ("decoder_start_token_id", "pad_token_id", "bos_token_id"):
        setattr(model.generation_config, name, 32)
    model.save_pretrained(folder)
    t.EncodecFeatureExtractor(feature_size=1, sampling_rate=16000).save_pretrained(folder)
    letters(folder)


def stable_audio(folder: Path) -> None:
    import diffusers as d
    from transformers import T5Config, T5EncoderModel

    transformer = d.StableAudioDiTModel(
        sample_size=1600, in_channels=3, num_layers=2, attention_head_dim=4, num_attention_heads=2,
        num_key_value_attention_heads=2, out_channels=3, cross_attention_dim=4, time_proj_dim=8,
        global_states_input_dim=8, cross_attention_input_dim=4,
    )  # fmt: skip
    vae = d.AutoencoderOobleck(
        encoder_hidden_size=6, downsampling_ratios=[1, 2], decoder_channels=3, decoder_input_channels=3,
        audio_channels=2, channel_multiples=[2, 4], sampling_rate=1600,
    )  # fmt: skip
    d.StableAudioPipeline(
        vae=vae,
        text_encoder=T5EncoderModel(
            T5Config(vocab_size=64, d_model=4, d_ff=8, num_layers=1, num_heads=2, d_kv=2)
        ),
        projection_model=d.pipelines.stable_audio.StableAudioProjectionModel(
            text_encoder_dim=4, conditioning_dim=4, min_value=0, max_value=32
        ),
        tokenizer=letters(folder / "letters", model_max_length=32),
        transformer=transformer,
        scheduler=d.CosineDPMSolverMultistepScheduler(
            solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
        ),
    ).save_pretrained(folder)


def whisper(folder: Path) -> None:
    """For Transformers in `plain`, for CTranslate2 in `fast`."""
    import transformers as t
    from ctranslate2.converters import TransformersConverter
    from tokenizers import pre_tokenizers

    names = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in LANGUAGES)]
    names += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    names += ["<|notimestamps|>", *(f"<|{number * 0.02:.2f}|>" for number in range(1501))]
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    end = "<|endoftext|>"
    tokenizer = t.WhisperTokenizer(vocab=vocabulary, merges=[], unk_token=end, bos_token=end, eos_token=end)
    tokenizer.add_tokens(names, special_tokens=True)
    number = tokenizer.convert_tokens_to_ids
    config = t.WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=80, decoder_start_token_id=number("<|startoftranscript|>"),
        eos_token_id=number(end), pad_token_id=number(end), bos_token_id=number(end),
        begin_suppress_tokens=None, suppress_tokens=None, **SMALL,
    )  # fmt: skip
    model = t.WhisperForConditionalGeneration(config)
    wanted = model.generation_config
    wanted.lang_to_id = {f"<|{name}|>": number(f"<|{name}|>") for name in LANGUAGES}
    wanted.task_to_id = {name: number(f"<|{name}|>") for name in ("transcribe", "translate")}
    wanted.no_timestamps_token_id = number("<|notimestamps|>")
    wanted.is_multilingual = True
    wanted.max_length = 32
    wanted.alignment_heads = [[0, 0]]
    wanted._from_model_config = False
    t.WhisperProcessor(t.WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(
        folder / "plain"
    )
    model.save_pretrained(folder / "plain")
    converter = TransformersConverter(str(folder / "plain"), copy_files=["tokenizer.json"])
    converter.convert(str(folder / "fast"))


def pieces(folder: Path) -> Path:
    import sentencepiece

    (folder / "text.txt").write_text("\n".join(TEXT * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "sentencepiece.bpe"), vocab_size=60,
        character_coverage=1.0, pad_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return folder / "sentencepiece.bpe.model"


def m2m100(folder: Path) -> None:
    import sentencepiece
    import transformers as t

    file = pieces(folder)
    known = sentencepiece.SentencePieceProcessor(str(file))
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for number in range(len(known)):
        vocabulary.setdefault(known.id_to_piece(number), len(vocabulary))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = t.M2M100Tokenizer(str(folder / "vocab.json"), str(file))
    tokenizer.save_pretrained(folder)
    config = t.M2M100Config(
        vocab_size=len(tokenizer) + 128, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        decoder_start_token_id=2, **SMALL,
    )  # fmt: skip
    t.M2M100ForConditionalGeneration(config).save_pretrained(folder)


def madlad(folder: Path) -> None:
    import transformers as t

    tokenizer = letters(folder, more=("<2en>", "<2es>", "<2bn>"))
    config = t.T5Config(
        vocab_size=len(tokenizer), d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    t.T5ForConditionalGeneration(config).save_pretrained(folder)


def vits(folder: Path) -> None:
    import transformers as t

    known = ["_", *"abcdefghijklmnopqrstuvwxyz '", *"আইউএওকখগঘচছজঝটঠডঢণতথদধনপফবভমযরলশষসহািীুূেৈোৌ্ংঁয়"]
    known = list(dict.fromkeys(known))
    vocabulary = {letter: number for number, letter in enumerate(known)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    t.VitsTokenizer(
        str(folder / "vocab.json"), language="ben", phonemize=False, is_uroman=False, pad_token="_"
    ).save_pretrained(folder)
    config = t.VitsConfig(
        vocab_size=len(known), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32,
        flow_size=16, spectrogram_bins=9, upsample_initial_channel=16, upsample_rates=[8, 8, 2, 2],
        upsample_kernel_sizes=[16, 16, 4, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]],
        prior_encoder_num_flows=1, prior_encoder_num_wavenet_layers=1, posterior_encoder_num_wavenet_layers=1,
        duration_predictor_num_flows=2, depth_separable_num_layers=1, duration_predictor_flow_bins=4,
        sampling_rate=16000,
    )  # fmt: skip
    t.VitsModel(config).save_pretrained(folder)


def demucs(folder: Path) -> None:
    """As at the hub in `bag`, as a file of old in `old.th`."""
    import torch
    from demucs.htdemucs import HTDemucs
    from safetensors.torch import save_file

    shape: dict[str, Any] = {
        "sources": ["drums", "bass", "other", "vocals"], "channels": 8, "nfft": 512, "depth": 2,
        "t_layers": 1, "t_heads": 2, "segment": 2, "samplerate": 8000, "bottom_channels": 16,
    }  # fmt: skip
    model = HTDemucs(**shape)
    (folder / "bag").mkdir()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    about = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": json.dumps(shape)}
    save_file(state, folder / "bag" / "abc123.safetensors", metadata=about)
    (folder / "bag" / "tiny.yaml").write_text("models: [abc123]\n")
    torch.save({"klass": HTDemucs, "args": (), "kwargs": shape, "state": state}, folder / "old.th")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    main(target)
