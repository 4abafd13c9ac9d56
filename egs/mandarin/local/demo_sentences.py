"""Sentences for the Mandarin demo corpus, from a small grammar of about a hundred characters.

The sentences are grammatical; no two are equal, and none is said by two speakers.
"""

import re

import numpy as np

_WORDS = {
    "who": "我 你 他 我们 你们 他们 老师 学生 医生 妈妈 爸爸 姐姐 弟弟 朋友 同学",
    "time": "今天 明天 昨天 早上 晚上 下午 现在 星期一 星期三 星期六",
    "place": "学校 家里 北京 上海 商店 公园 医院 饭店 中国 火车站 书店 这里",
    "do": "吃饭 喝茶 看书 写字 买东西 听音乐 学中文 打电话 喝水 吃苹果 看电影 坐火车 工作 睡觉",
    "like": "喜欢 想 会 不想 不会 不喜欢 爱",
    "thing": "本书 杯茶 个苹果 个朋友 个学生 块钱 本中文书 个老师 杯水 个电话 个月",
    "count": "一 两 三 四 五 六 七 八 九 十",
    "noun": "书 茶 电影 苹果 音乐 学校 火车 工作 电话 中文 家 商店",
    "how": "很大 很小 很好 很高兴 很贵 很多 不大 不好 不贵 太多了 太贵了 太小了",
    "ones": "一 二 三 四 五 六 七 八 九",
    "tens": "十 二十 三十 四十 五十 六十 七十 八十 九十",
    "minutes": "十 二十 三十 四十 五十",
    "where": "在哪里 在这里 在家里 在学校",
}

_TEMPLATES = (
    "{time}{who}在{place}{do}。",
    "{who}{time}{like}{do}。",
    "{who}{like}在{place}{do}。",
    "{who}有{count}{thing}。",
    "{who}的{noun}{how}。",
    "{place}的{noun}{how}，{who}{like}{do}。",
    "{time}{who}去{place}{do}吗？",
    "请问，{who}的{noun}{where}？",
    "{noun}{tens}{ones}块钱，{how}。",
    "{who}{time}买了{count}{thing}。",
    "现在{count}点{minutes}分，{who}去{place}。",
    "{who}是{place}的{kind}。",
    "{who}{time}{count}点{do}，{who2}{do2}。",
)

_KINDS = "老师 学生 医生 朋友"


def draw_sentences(seed: int, count: int) -> list[str]:
    """Different sentences with punctuation, the same ones for the same seed and count."""
    rng = np.random.default_rng([seed, 1])
    found: dict[str, None] = {}
    while len(found) < count:
        template = _TEMPLATES[int(rng.integers(len(_TEMPLATES)))]
        picks: dict[str, str] = {}
        for slot in re.findall(r"\{(\w+)\}", template):
            words = [w for w in _choices(slot) if w not in picks.values()]
            picks[slot] = words[int(rng.integers(len(words)))]
        found.setdefault(template.format(**picks))
    return list(found)


def _choices(slot: str) -> list[str]:
    return (_KINDS if slot == "kind" else _WORDS[slot.rstrip("2")]).split()


def vocabulary() -> set[str]:
    """All characters that a sentence may have."""
    text = "".join((_KINDS, *_WORDS.values(), *_TEMPLATES))
    return {c for c in text if "\u4e00" <= c <= "\u9fff"}
