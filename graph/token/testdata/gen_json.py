"""Writes tokenizer.json.gz, metaspace.json.gz and json.json: Hugging Face's form of the same vocabularies.

Needs sentencepiece 0.2.3, protobuf and tokenizers 0.23.3. Run in this folder, after gen_v3.py.

tokenizer.json.gz has the shape of Mixtral-8x7B-v0.1's file: every way to cut a piece in two
pieces is a merge, in falling order of the piece's score. metaspace.json.gz is the demo model's
vocabulary in the shape of Mixtral-8x22B-Instruct's file. json.json records what both libraries do.
"""
import gzip, json, random

from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import Tokenizer


def convert(path, metaspace):
    model = pb.ModelProto()
    model.ParseFromString(open(path, "rb").read())
    vocab = {p.piece: i for i, p in enumerate(model.pieces)}
    ranked = []
    for p in model.pieces:
        cuts = [(p.piece[:i], p.piece[i:]) for i in range(1, len(p.piece))]
        cuts = [c for c in cuts if c[0] in vocab and c[1] in vocab]
        ranked += [(-p.score, c) for c in sorted(cuts, key=lambda c: (vocab[c[0]], vocab[c[1]]))]
    ranked.sort(key=lambda r: r[0])
    added = [{"id": i, "content": p.piece, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, p in enumerate(model.pieces) if p.type in (2, 3)]
    normalizer = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    pre = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None if metaspace else normalizer, "pre_tokenizer": pre if metaspace else None,
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": [list(c) if metaspace else " ".join(c) for _, c in ranked]},
    }


def save(name, value):
    with open(name, "wb") as f:
        f.write(gzip.compress(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(), 9, mtime=0))


full, meta = convert("tokenizer.model", False), convert("demo/tokenizer.model", True)
save("tokenizer.json.gz", full)
save("metaspace.json.gz", meta)
fast, small = Tokenizer.from_str(json.dumps(full)), Tokenizer.from_str(json.dumps(meta))
for t in (fast, small):
    t.encode_special_tokens = True  # user text does not make control ids
sp, demo = SentencePieceProcessor("tokenizer.model"), SentencePieceProcessor("demo/tokenizer.model")

random.seed(7)
words = [p.piece.replace("▁", " ") for p in (pb.ModelProto.FromString(open("tokenizer.model", "rb").read()).pieces)[259:]]
blocks = [(0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x5FF), (0x900, 0xDFF), (0x2000, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF),
          (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF), (0xE000, 0xE010), (0xFFF0, 0xFFFD), (0x10FFF0, 0x10FFFF), (0x00, 0x1F)]


def piece():
    kind = random.randrange(8)
    if kind < 4:
        return random.choice(words)
    if kind == 4:
        return " " * random.randint(1, 40)
    if kind == 5:
        return random.choice("abeot. \n▁10é") * random.randint(1, 30)
    a, b = random.choice(blocks)
    return "".join(chr(random.randint(a, b)) for _ in range(random.randint(1, 6)))


texts = [" " * n for n in range(1, 70)] + ["x" + " " * n + "y" for n in range(1, 40)]
texts += ["".join(piece() for _ in range(random.randint(1, 12))) for _ in range(500)]
texts += ["</s>", "<s>", "<unk>", "<0x0A>", "a</s>b", "[INST] x [/INST]", "\0", "▁", "▁▁a", "\ufeffbom", "a\u0301"]
strings = [{"text": t, "ids": sp.encode(t), "fast": fast.encode(t, add_special_tokens=False).ids,
            "demo": demo.encode(t), "small": small.encode(t, add_special_tokens=False).ids} for t in texts]
for s in strings:  # recorded where it differs from sentencepiece
    if s["fast"] == s["ids"]:
        del s["fast"]
    if s["small"] == s["demo"]:
        del s["small"]

decoded = []
for _ in range(600):
    pools = [range(3), range(3, 259), range(3, 259), range(259, 32000), [259, 260, 28705, 264, 230, 133, 153]]
    ids = [random.choice(random.choice(pools)) for _ in range(random.randint(1, 12))]
    decoded.append({"ids": ids, "text": sp.decode(ids)})

print(len(strings), "strings;", sum("fast" in s for s in strings), "differ from sentencepiece in the long form,",
      sum("small" in s for s in strings), "with Metaspace")
json.dump({"strings": strings, "decoded": decoded}, open("json.json", "w"), ensure_ascii=True, separators=(",", ":"))
