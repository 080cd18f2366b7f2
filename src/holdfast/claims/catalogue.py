"""The 54 papers that the product implements, as data: one row each.

A paper's claim lives in ``claims/cNN_slug.py``, where NN is its number and slug its name with underscores; it is found
by that file name and by nothing else, so this table never has to be told that a claim was written.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.errors import ClaimError


@dataclass(frozen=True, slots=True)
class Paper:
    """One paper: its number among the claims, its short name, its arXiv id and its title."""

    number: int
    name: str
    arxiv: str
    title: str

    @property
    def stem(self) -> str:
        """``12-ai-hippocampus``: how the evidence of its claim is called."""
        return f"{self.number:02d}-{self.name}"

    @property
    def module(self) -> str:
        """``c12_ai_hippocampus``: how the module of its claim is called."""
        return f"c{self.number:02d}_{self.name.replace('-', '_')}"


PAPERS: tuple[Paper, ...] = (
    Paper(1, "a-memguard", "2510.02373", "A-MemGuard: A Proactive Defense Framework for LLM-Based Agent Memory"),
    Paper(
        2,
        "memorygraft",
        "2512.16962",
        "MemoryGraft: Persistent Compromise of LLM Agents via Poisoned Experience Retrieval",
    ),
    Paper(
        3, "mem1", "2506.15841", "MEM1: Learning to Synergize Memory and Reasoning for Efficient Long-Horizon Agents"
    ),
    Paper(4, "mem-alpha", "2509.25911", "Mem-α: Learning Memory Construction via Reinforcement Learning"),
    Paper(
        5,
        "memact",
        "2510.12635",
        "Memory as Action (MemAct / DCPO): Autonomous Context Curation for Long-Horizon Agentic Tasks",
    ),
    Paper(6, "continuous-memory-gui", "2510.09038", "Auto-scaling Continuous Memory for GUI Agent (CoMEM-Agent)"),
    Paper(7, "memgen", "2509.24704", "MemGen: Weaving Generative Latent Memory for Self-Evolving Agents"),
    Paper(8, "l2mac", "2310.02003", "L2MAC: Large Language Model Automatic Computer for Extensive Code Generation"),
    Paper(
        9,
        "bmojo",
        "2407.06324",
        "B'MOJO: Hybrid State Space Realizations of Foundation Models with Eidetic and Fading Memory",
    ),
    Paper(10, "lcia", "2410.10868", "Large Continual Instruction Assistant (LCIA / CIA)"),
    Paper(11, "mlp-memory", "2508.01832", "MLP Memory: Language Modeling with Retriever-pretrained External Memory"),
    Paper(12, "ai-hippocampus", "2601.09113", "The AI Hippocampus: How Far are We From Human Memory?"),
    Paper(
        13,
        "ptm",
        "2512.20245",
        "Memory as Resonance: A Biomimetic Architecture for Infinite Context Memory on Ergodic Phonetic Manifolds (PTM)",
    ),
    Paper(14, "memos", "2507.03724", "MemOS: A Memory OS for AI System"),
    Paper(
        15,
        "memoryvla",
        "2508.19236",
        "MemoryVLA: Perceptual-Cognitive Memory in Vision-Language-Action Models for Robotic Manipulation",
    ),
    Paper(
        16,
        "memory-rewriting",
        "2601.15086",
        "Memory Retention Is Not Enough to Master Memory Tasks in Reinforcement Learning",
    ),
    Paper(17, "clr", "2307.11386", "CLR: Channel-wise Lightweight Reprogramming for Continual Learning"),
    Paper(18, "memskill", "2602.02474", "MemSkill: Learning and Evolving Memory Skills for Self-Evolving Agents"),
    Paper(19, "mom", "2502.13685", "MoM: Linear Sequence Modeling with Mixture-of-Memories"),
    Paper(20, "wise", "2405.14768", "WISE: Rethinking the Knowledge Memory for Lifelong Model Editing of LLMs"),
    Paper(
        21,
        "agentsys",
        "2602.07398",
        "AgentSys: Secure and Dynamic LLM Agents Through Explicit Hierarchical Memory Management",
    ),
    Paper(
        22,
        "llm-memory-evaluation",
        "2509.18868",
        "Memory in Large Language Models: Mechanisms, Evaluation and Evolution",
    ),
    Paper(23, "delethink", "2510.06557", "The Markovian Thinker (Delethink)"),
    Paper(
        24,
        "knowledge-clashes",
        "2305.13300",
        "Adaptive Chameleon or Stubborn Sloth: Unraveling the Behavior of Large Language Models in Knowledge Clashes",
    ),
    Paper(25, "arcmemo", "2509.04439", "ArcMemo: Abstract Reasoning Composition with Lifelong LLM Memory"),
    Paper(
        26,
        "superlocalmemory",
        "2603.14588",
        "SuperLocalMemory V3: Information-Geometric Foundations for Zero-LLM Enterprise Agent Memory",
    ),
    Paper(27, "memevolve", "2512.18746", "MemEvolve: Meta-Evolution of Agent Memory Systems"),
    Paper(
        28,
        "move",
        "2601.22887",
        "MoVE: Mixture of Value Embeddings — A New Axis for Scaling Parametric Memory in Autoregressive Models",
    ),
    Paper(
        29,
        "synaptic-resonance",
        "2502.10699",
        "Exploring Synaptic Resonance in Large Language Models: A Novel Approach to Contextual Memory Integration",
    ),
    Paper(
        30,
        "memory-r1",
        "2508.19828",
        "Memory-R1: Enhancing LLM Agents to Manage and Utilize Memories via Reinforcement Learning",
    ),
    Paper(31, "rehearsal-free", "2203.17269", "A Closer Look at Rehearsal-Free Continual Learning"),
    Paper(32, "train-once", "2509.23383", "Train Once, Answer All: Many Pretraining Experiments for the Cost of One"),
    Paper(33, "memos-mag", "2505.22101", "MemOS: An Operating System for Memory-Augmented Generation (MAG) in LLMs"),
    Paper(34, "dmn", "2403.17589", "Dual Memory Networks: A Versatile Adaptation Approach for Vision-Language Models"),
    Paper(35, "titans", "2501.00663", "Titans: Learning to Memorize at Test Time"),
    Paper(36, "sirllm", "2405.12528", "SirLLM: Streaming Infinite Retentive LLM"),
    Paper(
        37, "memrl", "2601.03192", "MemRL: Self-Evolving Agents via Runtime Reinforcement Learning on Episodic Memory"
    ),
    Paper(
        38, "trim-kv", "2512.03324", "Cache What Lasts: Token Retention for Memory-Bounded KV Cache in LLMs (TRIM-KV)"
    ),
    Paper(
        39, "memsifter", "2603.03379", "MemSifter: Offloading LLM Memory Retrieval via Outcome-Driven Proxy Reasoning"
    ),
    Paper(
        40, "hack", "2504.09261", "Head-Aware KV Cache Compression for Efficient Visual Autoregressive Modeling (HACK)"
    ),
    Paper(
        41,
        "hcam",
        "2105.14039",
        "Towards mental time travel: a hierarchical memory for reinforcement learning agents (HCAM)",
    ),
    Paper(42, "memo", "2407.12117", "Efficiently Training 7B LLM with 1 Million Sequence Length on 8 GPUs (MEMO)"),
    Paper(
        43, "memory-survey", "2512.13564", "Memory in the Age of AI Agents: A Survey (Forms, Functions and Dynamics)"
    ),
    Paper(
        44,
        "intrinsic-memory-agents",
        "2508.08997",
        "Intrinsic Memory Agents: Heterogeneous Multi-Agent LLM Systems through Structured Contextual Memory",
    ),
    Paper(
        45, "vattention", "2405.04437", "vAttention: Dynamic Memory Management for Serving LLMs without PagedAttention"
    ),
    Paper(
        46,
        "fast-slow-nmn",
        "2011.05438",
        "Fast & Slow Learning: Incorporating Synthetic Gradients in Neural Memory Controllers",
    ),
    Paper(
        47,
        "msa",
        "2603.23516",
        "MSA: Memory Sparse Attention for Efficient End-to-End Memory Model Scaling to 100M Tokens",
    ),
    Paper(48, "dynamic-cheatsheet", "2504.07952", "Dynamic Cheatsheet: Test-Time Learning with Adaptive Memory"),
    Paper(
        49,
        "hyperinterval",
        "2405.15444",
        "HyperInterval (HINT): Hypernetwork approach to training weight interval regions in continual learning",
    ),
    Paper(
        50, "corrective-unlearning", "2402.14015", "Corrective Machine Unlearning (with Selective Synaptic Dampening)"
    ),
    Paper(
        51,
        "hierarchical-memories",
        "2510.02375",
        "Pretraining with hierarchical memories: separating long-tail and common knowledge",
    ),
    Paper(52, "loop", "2502.01600", "Reinforcement Learning for Long-Horizon Interactive LLM Agents (LOOP)"),
    Paper(
        53,
        "kappatune",
        "2506.16289",
        "The Condition Number as a Scale-Invariant Proxy for Information Encoding in Neural Units (KappaTune)",
    ),
    Paper(
        54,
        "bottlenecked-transformers",
        "2505.16950",
        "Bottlenecked Transformers: Periodic KV Cache Consolidation for Generalised Reasoning",
    ),
)


def paper(number: int) -> Paper:
    """The paper with that number. Raises ClaimError where there is none."""
    if not 1 <= number <= len(PAPERS):
        raise ClaimError(f"there is no claim {number}; claims are numbered 1 to {len(PAPERS)} (holdfast claims list)")
    return PAPERS[number - 1]
