"""RewardBench's subsets and sections, and their weights on its leaderboard."""

from __future__ import annotations

# The leaderboard's weights of the subsets. math-prm has 447 rows and is up-weighted to
# the 984 rows of the code subsets. The older constants file has the two xstest counts swapped; the
# data holds 154 prompts to refuse and 250 to answer.
SUBSET_COUNTS: dict[str, dict[str, int]] = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
    # The prior sets have equal weights, whatever their size.
    "Prior": {"anthropic_helpful": 1, "anthropic_hhh": 1, "shp": 1, "summarize": 1},
}
SECTION_WEIGHTS = {"Chat": 2, "Chat Hard": 2, "Safety": 2, "Reasoning": 2, "Prior": 1}
SECTION_OF = {subset: section for section, counts in SUBSET_COUNTS.items() for subset in counts}
