"""The table of all methods. The benchmark, the pages, the tests and the speed scripts read it: a row a method.

A new method is a new row here. The class itself is imported from `mtl_ref.methods`, which holds no table.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from mtl_ref import methods
from mtl_ref.balancer import GradientBalancer, LossBalancer
from mtl_ref.problems.base import HardSharing


@dataclass(frozen=True)
class Method:
    """What the pages, the tests and the benchmark know of a method, or of one form of it.

    Attributes:
        key: its name on the command line and in results.
        title: its name on every page; `form` follows it where a method has several.
        family: what kind of answer it is.
        paper: its key in `book/references.bib`, or "" where the book's sources propose it without a paper.
        tag: the tag of its first equation.
        sees: what it looks at.
        decides: what it decides by.
        passes: backward passes through the encoder in a step, in words.
        state: what it remembers from step to step.
        gram: whether the direction is Jᵀα with an α found from the Gram matrix M (and the losses).
        priorities: what a user's own weights mean after the method's scaling, or "" where they have no meaning.
        chapter: the notebook that derives it, as NN_name.
        make: from a problem (its tasks, kinds and prior losses) to the balancer. Keywords, as priorities, go on
            to its class.
        formula: what is minimised, or the direction, in LaTeX.
        promise: what it guarantees, with the condition.
        when: the situation that speaks for it.
        call: how it is made in code.
        form: which variant of the title it is, or "".
        train: further keywords of `mtl_ref.train` that it is run with.
    """

    key: str
    title: str
    family: str
    paper: str
    tag: str
    sees: str
    decides: str
    passes: str
    state: str
    gram: bool
    priorities: str
    chapter: str
    make: Callable[..., LossBalancer | GradientBalancer]
    formula: str
    promise: str
    when: str
    call: str
    form: str = ""
    train: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Where its class stands in the repository."""
        made = getattr(methods, self.call.removeprefix("mtl.").split("(")[0])
        return str(made.__module__).replace(".", "/") + ".py"

    @property
    def in_one_file(self) -> bool:
        """Whether it can be had as a single file: those differentiate one batch, so not with two."""
        return not getattr(getattr(methods, self.call.removeprefix("mtl.").split("(")[0]), "takes_second", False)

    @property
    def name(self) -> str:
        """The title with its form: what a table or a legend says."""
        return f"{self.title} {self.form}".strip()


def last_layer(model: HardSharing) -> Iterable[nn.Parameter]:
    """The parameters of the encoder's last linear or convolutional layer, where GradNorm looks."""
    layers = [m for m in model.encoder.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    return layers[-1].parameters(recurse=False)


def first_by_name(problem: Any) -> int:
    """Which task counts first in a benchmark: that whose name comes first; the first where no problem is known."""
    return 0 if problem is None else problem.tasks.index(min(problem.tasks))


PAPERS = {  # what a card says of a paper; the whole of it is in book/references.bib
    "ban2024": ("Ban and Ji 2024", "https://arxiv.org/abs/2402.15638"),
    "bischof2021": ("Bischof and Kraus 2021", "https://arxiv.org/abs/2110.09813"),
    "blanchard2017": ("Blanchard et al. 2017", "https://arxiv.org/abs/1703.02757"),
    "chen2018": ("Chen et al. 2018", "https://arxiv.org/abs/1711.02257"),
    "chen2020": ("Chen et al. 2020", "https://arxiv.org/abs/2010.06808"),
    "chen2023": ("Chen et al. 2023", "https://arxiv.org/abs/2305.20057"),
    "chennupati2019": ("Chennupati et al. 2019", "https://arxiv.org/abs/1904.08492"),
    "fernando2023": ("Fernando et al. 2023", "https://arxiv.org/abs/2210.12624"),
    "he2022": ("He et al. 2022", "https://arxiv.org/abs/2203.06801"),
    "he2024": ("He et al. 2024", "https://arxiv.org/abs/2402.02009"),
    "heydari2019": ("Heydari, Thompson and Mehmood 2019", "https://arxiv.org/abs/1912.12355"),
    "kendall2018": ("Kendall, Gal and Cipolla 2018", "https://arxiv.org/abs/1705.07115"),
    "kirchdorfer2024": ("Kirchdorfer et al. 2024", "https://arxiv.org/abs/2408.07985"),
    "kurin2022": ("Kurin et al. 2022", "https://arxiv.org/abs/2201.04122"),
    "liebel2018": ("Liebel and Körner 2018", "https://arxiv.org/abs/1805.06334"),
    "lin2022": ("Lin et al. 2022", "https://arxiv.org/abs/2111.10603"),
    "lin2023": ("Lin et al. 2023", "https://arxiv.org/abs/2308.12029"),
    "lin2024": ("Lin et al. 2024", "https://arxiv.org/abs/2402.19078"),
    "liu2019": ("Liu, Johns and Davison 2019", "https://arxiv.org/abs/1803.10704"),
    "liu2021cagrad": ("Liu et al. 2021", "https://arxiv.org/abs/2110.14048"),
    "liu2021imtl": ("Liu, Li et al. 2021", "https://openreview.net/forum?id=IMPnRXEWpvr"),
    "liu2023famo": ("Liu et al. 2023", "https://arxiv.org/abs/2306.03792"),
    "liu2025": ("Liu, Chu and Thuerey 2025", "https://arxiv.org/abs/2408.11104"),
    "lopezpaz2017": ("Lopez-Paz and Ranzato 2017", "https://arxiv.org/abs/1706.08840"),
    "navon2022": ("Navon et al. 2022", "https://arxiv.org/abs/2202.01017"),
    "qin2025": ("Qin et al. 2025", "https://arxiv.org/abs/2510.18258"),
    "quinton2024": ("Quinton and Rey 2024", "https://arxiv.org/abs/2406.16232"),
    "ruchte2021": ("Ruchte and Grabocka 2021", "https://arxiv.org/abs/2103.13392"),
    "sagawa2020": ("Sagawa et al. 2020", "https://arxiv.org/abs/1911.08731"),
    "sener2018": ("Sener and Koltun 2018", "https://arxiv.org/abs/1810.04650"),
    "senushkin2023": ("Senushkin et al. 2023", "https://arxiv.org/abs/2305.19000"),
    "shen2024": ("Shen et al. 2024", "https://arxiv.org/abs/2404.06486"),
    "su2022": ("Su 2022", "https://spaces.ac.cn/archives/8907"),
    "varam2026": ("Varam and AlHajri 2026", "https://arxiv.org/abs/2606.29521"),
    "wang2021": ("Wang et al. 2021", "https://arxiv.org/abs/2010.05874"),
    "xiao2023": ("Xiao, Ban and Ji 2023", "https://arxiv.org/abs/2305.18409"),
    "yin2018": ("Yin et al. 2018", "https://arxiv.org/abs/1803.01498"),
    "yu2020": ("Yu et al. 2020", "https://arxiv.org/abs/2001.06782"),
    "zhang2007": ("Zhang and Li 2007", "https://doi.org/10.1109/TEVC.2007.892759"),
    "zhou2022": (
        "Zhou et al. 2022",
        "https://papers.neurips.cc/paper_files/paper/2022/hash/f91bd64a3620aad8e70a27ad9cb3ca57-Abstract-Conference.html",
    ),
}
# For weights that the network's optimiser learns; GradNorm's own rate is the same.
LEARNED = {"balancer_lr": 0.025}
ROWS = (
    Method(
        "equal", "equal weights", "weights chosen beforehand", "kurin2022", "WS.2",
        sees="nothing", decides="counting every loss the same", passes="1", state="none", gram=False,
        priorities="", chapter="01_many_losses", make=lambda p, **k: methods.EqualWeighting(**k),
        formula=r"\tfrac1T \sum_i L_i",
        promise="a global minimum is Pareto optimal",
        when="first, and always beside whatever else you try",
        call="mtl.EqualWeighting()",
    ),
    Method(
        "fixed", "fixed weights", "weights chosen beforehand", "kurin2022", "WS.1",
        sees="nothing", decides="your choice", passes="1", state="none", gram=False,
        priorities="the weights themselves", chapter="01_many_losses",
        make=lambda p, **k: methods.FixedWeighting([1.0] * len(p.tasks), **k),
        formula=r"\sum_i w_i L_i",
        promise="a global minimum is Pareto optimal if all weights are positive",
        when="you can afford to search the weights on validation data",
        call="mtl.FixedWeighting([1.0, 0.1])",
    ),
    Method(
        "initial", "initial loss scaling", "values of the losses", "", "IS.1",
        sees="the losses at the start", decides="making every loss start at 1", passes="1",
        state="T initial losses", gram=False, priorities="Σ vᵢ Lᵢ/Lᵢ⁽⁰⁾",
        chapter="02_scaling_losses", make=lambda p, **k: methods.InitialLossScaling(**k),
        formula=r"\sum_i L_i / L_i^{(0)}",
        promise="every loss counts 1 at the start, whatever its unit",
        when="losses start at very different sizes, and you train from scratch",
        call="mtl.InitialLossScaling()",
    ),
    Method(
        "prior", "prior loss scaling", "values of the losses", "", "PS.1",
        sees="the labels", decides="dividing by what an answer without the input would lose", passes="1",
        state="none", gram=False, priorities="Σ vᵢ Lᵢ/Lᵢ^prior",
        chapter="02_scaling_losses", make=lambda p, **k: methods.PriorLossScaling(p.prior_losses(), **k),
        formula=r"\sum_i L_i / L_i^{\mathrm{prior}}",
        promise="every loss is measured in units of the best constant answer",
        when="losses have different units, and label statistics are known",
        call="mtl.PriorLossScaling([2.3, 0.7])",
    ),
    Method(
        "realtime", "real-time loss scaling", "values of the losses", "", "RS.1",
        sees="the losses now", decides="making every loss count by its relative change", passes="1",
        state="none", gram=False, priorities="Σ vᵢ Lᵢ/sg(Lᵢ)",
        chapter="02_scaling_losses", make=lambda p, **k: methods.RealTimeLossScaling(**k),
        formula=r"\sum_i L_i / \mathrm{sg}(L_i)",
        promise="the gradient does not change with the unit of a loss",
        when="units are arbitrary, losses stay positive and batches are large",
        call="mtl.RealTimeLossScaling()",
    ),
    Method(
        "geometric", "geometric mean", "values of the losses", "chennupati2019", "GM.1",
        sees="the losses now", decides="making every loss count by its relative change", passes="1",
        state="none", gram=False, priorities="(∏ Lᵢ^vᵢ)^{1/T}, Σ vᵢ = T",
        chapter="02_scaling_losses", make=lambda p, **k: methods.GeometricMean(**k),
        formula=r"\bigl(\prod_i L_i\bigr)^{1/T}",
        promise="its gradient points where that of real-time scaling does, and its value falls with the losses",
        when="as real-time scaling, where the value of the total is to mean something",
        call="mtl.GeometricMean()",
    ),
    Method(
        "power", "power mean", "values of the losses", "", "PM.1",
        sees="the losses now", decides="following the larger losses, more so for a larger γ", passes="1",
        state="none", gram=False, priorities="Σ vᵢ Lᵢ^γ / T, Σ vᵢ = T",
        chapter="02_scaling_losses", make=lambda p, **k: methods.PowerMean(2.0, **k),
        formula=r"\bigl(\tfrac1T \sum_i L_i^\gamma\bigr)^{1/\gamma}",
        promise="γ moves between the mean (1), the geometric mean (0) and the largest loss (∞)",
        when="the worst loss matters more than the average",
        call="mtl.PowerMean(2.0)",
    ),
    Method(
        "uncertainty", "uncertainty weighting", "values of the losses", "kendall2018", "UW.1",
        sees="the losses now, slowly", decides="a likelihood with a learned noise level per task", passes="1",
        state="T learned numbers", gram=False, priorities="Σ vᵢ (Lᵢ/2σᵢ² + log σᵢ)",
        chapter="03_uncertainty",
        make=lambda p, **k: methods.UncertaintyWeighting([p.kinds[t] for t in p.tasks], **k),
        formula=r"\sum_i h_i e^{-s_i} L_i + \tfrac12 s_i,\quad h_i \in \{\tfrac12, 1\}",
        promise="where s has settled, every weighted loss is ½, whatever its unit",
        when="losses are likelihoods, and there are steps enough for s to settle",
        call='mtl.UncertaintyWeighting(["regression", "classification"])',
        train=LEARNED,
    ),
    Method(
        "awl", "log(1 + c²) weighting", "values of the losses", "liebel2018", "AW.1",
        sees="the losses now, slowly", decides="a learned noise level per task, with a positive penalty",
        passes="1", state="T learned numbers", gram=False, priorities="Σ vᵢ (Lᵢ/2cᵢ² + log(1 + cᵢ²))",
        chapter="03_uncertainty",
        make=lambda p, **k: methods.AutomaticWeightedLoss(len(p.tasks), **k),
        formula=r"\sum_i L_i / 2c_i^2 + \log(1 + c_i^2)",
        promise="the total stays positive where the losses do",
        when="you would use uncertainty weighting, but a negative total is a nuisance",
        call="mtl.AutomaticWeightedLoss(2)", train=LEARNED,
    ),
    Method(
        "normalized", "normalised gradients", "lengths of the gradients", "", "GN.4",
        sees="the length of each gradient", decides="making all equally long", passes="T",
        state="none", gram=True, priorities="Σ vᵢ gᵢ/‖gᵢ‖",
        chapter="04_gradient_magnitude", make=lambda p, **k: methods.GradientNormalization(**k),
        formula=r"d = \sum_i g_i / \lVert g_i \rVert",
        promise="no task pulls harder than another, whatever its unit",
        when="gradients differ much in length, and T backward passes are affordable",
        call="mtl.GradientNormalization()",
    ),
    Method(
        "normalized-rate", "normalised gradients", "lengths of the gradients", "", "GN.4", form="by rate",
        sees="the length of each gradient, and the losses since the start",
        decides="making a gradient longer, the more slowly its task learns", passes="T",
        state="T initial losses", gram=True, priorities="Σ vᵢ rᵢ^α gᵢ/‖gᵢ‖",
        chapter="04_gradient_magnitude", make=lambda p, **k: methods.GradientNormalization(alpha=1.5, **k),
        formula=r"d = \sum_i r_i^\alpha\, g_i / \lVert g_i \rVert",
        promise="as without the rate, and a task that lags pulls harder",
        when="as without the rate, and tasks learn at different paces",
        call="mtl.GradientNormalization(alpha=1.5)",
    ),
    Method(  # the stored results are of the update "relative"; the paper's is "adam", the default of the class
        "gradnorm", "GradNorm", "lengths of the gradients", "chen2018", "GN.5",
        sees="the length of each gradient on one layer",
        decides="learning weights that let tasks progress at one pace", passes="1, and T of one layer",
        state="T weights, T initial losses", gram=False, priorities="the target Ḡ vᵢ rᵢ^α, Σ vᵢ = T",
        chapter="04_gradient_magnitude",
        make=lambda p, **k: methods.GradNorm(len(p.tasks), update="relative", **k),
        formula=r"\sum_i w_i L_i,\quad w_i \lVert \nabla_W L_i \rVert \to \bar G r_i^\alpha",
        promise="where w has settled, gradients of one layer are as long as their targets, if these can be met",
        when="gradients differ much in length, and only one layer's are affordable",
        call="mtl.GradNorm(2)",
        train={"shared": last_layer},
    ),
    Method(
        "pcgrad", "PCGrad", "conflicts of the gradients", "yu2020", "PC.1",
        sees="the angles between gradients", decides="removing what points against another task", passes="T",
        state="random order", gram=True, priorities="",
        chapter="05_gradient_conflict", make=lambda p, **k: methods.PCGrad(**k),
        formula=r"d = \sum_i g_i^{PC}",
        promise="two tasks: neither gradient points against d",
        when="a few tasks whose gradients often point against each other",
        call="mtl.PCGrad()",
    ),
    Method(
        "mgda", "MGDA", "Pareto stationarity", "sener2018", "MG.1",
        sees="all inner products", decides="the shortest weighted mean of the gradients", passes="T",
        state="none", gram=True, priorities="", chapter="07_mgda", make=lambda p, **k: methods.MGDA(**k),
        formula=r"d = \sum_i \alpha_i g_i,\quad \alpha = \arg\min_\Delta \lVert \sum_i \alpha_i g_i \rVert",
        promise="a small enough plain step −ηd raises no loss of this batch; an Adam step may",
        when="no loss may rise, and you take plain gradient steps on large batches",
        call="mtl.MGDA()",
    ),
    *(
        Method(
            f"mgda-{normalize}", "MGDA", "Pareto stationarity", "sener2018", "MG.1", form=normalize,
            sees=f"all inner products{losses}", decides=f"the same of gradients divided by {by}", passes="T",
            state="none", gram=True, priorities="", chapter="07_mgda",
            make=lambda p, normalize=normalize, **k: methods.MGDA(normalize=normalize, **k),
            formula=rf"d = \sum_i \alpha_i s_i g_i,\quad s_i = 1 / {size}",
            promise="as MGDA: a small enough plain step −ηd raises no loss of this batch; an Adam step may",
            when="as MGDA, where the gradients differ much in length",
            call=f'mtl.MGDA(normalize="{normalize}")',
        )
        for normalize, by, losses, size in (
            ("l2", "their lengths", "", r"\lVert g_i \rVert"),
            ("loss", "their losses", ", the losses", "L_i"),
            ("loss+", "their losses and lengths", ", the losses", r"(L_i \lVert g_i \rVert)"),
        )
    ),
    Method(
        "config", "ConFIG", "equal gains", "liu2025", "CN.1",
        sees="all inner products", decides="one cosine with every gradient", passes="T",
        state="none", gram=True, priorities="", chapter="12_more_directions",
        make=lambda p, **k: methods.ConFIG(**k),
        formula=r"d \propto \sum_i y_i\, g_i / \lVert g_i \rVert,\quad C y = 1",
        promise="linearly independent gradients: every loss falls, all in proportion to their gradients' lengths",
        when="every task shall advance at the same relative pace, whatever its unit",
        call="mtl.ConFIG()",
    ),
    Method(
        "nash", "Nash-MTL", "equal gains", "navon2022", "NA.1",
        sees="all inner products", decides="the largest product of gains", passes="T",
        state="none", gram=True, priorities="", chapter="12_more_directions",
        make=lambda p, **k: methods.NashMTL(**k),
        formula=r"d = \sum_i \alpha_i g_i,\quad M \alpha = 1 / \alpha",
        promise="every loss falls, except at stationary points; the direction ignores the losses' units",
        when="as ConFIG, where no weight may be negative",
        call="mtl.NashMTL()",
    ),
    Method(
        "fairgrad", "FairGrad", "equal gains", "ban2024", "FG.1",
        sees="all inner products", decides="gains that are fair in the sense of α", passes="T",
        state="none", gram=True, priorities="", chapter="12_more_directions",
        make=lambda p, **k: methods.FairGrad(2.0, **k),
        formula=r"d = \sum_i \alpha_i g_i,\quad M \alpha = \alpha^{-1/a}",
        promise="every loss falls, except at stationary points; a moves from the sum (0) over Nash-MTL (1) to the "
        "largest least gain (∞)",
        when="you want a dial between the sum and the task that gains least",
        call="mtl.FairGrad(2.0)",
    ),
    Method(
        "upgrad", "UPGrad", "common descent", "quinton2024", "UP.1",
        sees="all inner products", decides="the mean of gradients that raise no loss", passes="T",
        state="none", gram=True, priorities="", chapter="12_more_directions",
        make=lambda p, **k: methods.UPGrad(**k),
        formula=r"d = \tfrac1T \sum_i \pi(g_i)",
        promise="a small enough plain step −ηd raises no loss of this batch; lengths count in proportion",
        when="no loss may rise, and the step shall otherwise be as the sum's",
        call="mtl.UPGrad()",
    ),
    Method(
        "dualproj", "DualProj", "common descent", "lopezpaz2017", "DP.1",
        sees="all inner products", decides="the closest direction to the mean that raises no loss", passes="T",
        state="none", gram=True, priorities="", chapter="12_more_directions",
        make=lambda p, **k: methods.DualProj(**k),
        formula=r"d = \pi\bigl(\tfrac1T \sum_i g_i\bigr)",
        promise="a small enough plain step −ηd raises no loss of this batch",
        when="as UPGrad, and the loss with the longest gradient is the one that counts",
        call="mtl.DualProj()",
    ),
    Method(
        "cagrad", "CAGrad", "common descent", "liu2021cagrad", "CA.1",
        sees="all inner products", decides="the largest least gain near the mean gradient", passes="T",
        state="none", gram=True, priorities="", chapter="12_more_directions",
        make=lambda p, **k: methods.CAGrad(**k),
        formula=r"\max_d \min_i \langle g_i, d \rangle,\quad \lVert d - g_0 \rVert \le c \lVert g_0 \rVert",
        promise="c < 1: it can only stop where the mean gradient is zero; c ≥ 1: no loss rises",
        when="the mean of the losses is the aim, and the worst task shall suffer less on the way",
        call="mtl.CAGrad(c=0.5)",
    ),
    Method(
        "aligned", "Aligned-MTL", "common descent", "senushkin2023", "AL.1",
        sees="all inner products", decides="making the gradients orthogonal and equally long", passes="T",
        state="none", gram=True, priorities="", chapter="12_more_directions",
        make=lambda p, **k: methods.AlignedMTL(**k),
        formula=r"d = \sum_i \hat g_i,\quad \hat J = \sigma_{\min} (J J^\top)^{-1/2} J",
        promise="the aligned gradients do not conflict with each other; with the raw ones they may",
        when="gradients are few, and none is nearly a mixture of the others",
        call="mtl.AlignedMTL()",
    ),
    Method(
        "unit-upgrad", "Normalized", "common descent", "", "NO.1", form="UPGrad",
        sees="all inner products", decides="UPGrad's answer for gradients of one length", passes="T",
        state="none", gram=True, priorities="", chapter="12_more_directions",
        make=lambda p, **k: methods.Normalized(methods.UPGrad(), **k),
        formula=r"d = \tfrac1T \sum_i \pi(g_i / \lVert g_i \rVert)",
        promise="as UPGrad: a small enough plain step −ηd raises no loss of this batch; units do not matter",
        when="any method of the gradients shall not depend on the units of the losses",
        call="mtl.Normalized(mtl.UPGrad())",
    ),
    Method(
        "rlw", "random weights", "weights chosen beforehand", "lin2022", "RL.1",
        sees="nothing", decides="drawing weights anew in every step", passes="1",
        state="random draws", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.RLW(**k),
        formula=r"\sum_i w_i L_i,\quad w = \operatorname{softmax}(x),\ x \sim N(0, I)",
        promise="none: its expected gradient is that of equal weights",
        when="as a control: what does no better than this has not earned its weights",
        call="mtl.RLW()",
    ),
    Method(
        "uw-so", "UW-SO", "values of the losses", "kirchdorfer2024", "SO.1",
        sees="the losses now", decides="more weight for smaller losses, softly", passes="1",
        state="none", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.UWSO(**k),
        formula=r"\sum_i w_i L_i,\quad w = \operatorname{softmax}\bigl(1 / \tau \operatorname{sg}(L)\bigr)",
        promise="none of its own: between the mean (τ → ∞) and the smallest loss alone (τ → 0)",
        when="real-time scaling follows small losses too hard or too little, and τ can be searched",
        call="mtl.UWSO(temperature=1.0)",
    ),
    Method(
        "dwa", "DWA", "pace of the losses", "liu2019", "DW.1",
        sees="mean losses of the last two epochs", decides="more weight for what fell least", passes="1",
        state="2T means, T sums", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.DWA(len(p.tasks), **k),
        formula=r"\sum_i w_i L_i,\quad w = T \operatorname{softmax}\bigl(L^{(t-1)} / \tau L^{(t-2)}\bigr)",
        promise="none; with τ = 2 and falling losses every weight is between e^−½ and e^½",
        when="a mild nudge for the slow tasks is wanted, and units agree",
        call="mtl.DWA(2)",
    ),
    Method(
        "softadapt", "SoftAdapt", "pace of the losses", "heydari2019", "SA.1",
        sees="the losses now and one step before", decides="more weight for what fell least", passes="1",
        state="T losses", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.SoftAdapt(len(p.tasks), **k),
        formula=r"\sum_i w_i L_i,\quad w = \operatorname{softmax}\bigl(\beta (L^{(t)} - L^{(t-1)})\bigr)",
        promise="none; on mini-batches it follows their noise",
        when="the whole data set is the batch, as in physics-informed networks",
        call="mtl.SoftAdapt(2)",
    ),
    Method(
        "relobralo", "ReLoBRaLo", "pace of the losses", "bischof2021", "RB.1",
        sees="the losses now, one step before and at the start", decides="more weight for what fell least",
        passes="1", state="T weights, 2T losses, random look-back", gram=False, priorities="",
        chapter="13_weights_from_losses",
        make=lambda p, **k: methods.ReLoBRaLo(len(p.tasks), **k),
        formula=r"\sum_i w_i L_i,\quad w \approx T \operatorname{softmax}\bigl(L / \tau L'\bigr)\ \text{averaged}",
        promise="none",
        when="as SoftAdapt, where single steps say too little",
        call="mtl.ReLoBRaLo(2)",
    ),
    Method(
        "groupdro", "GroupDRO", "pace of the losses", "sagawa2020", "DR.1",
        sees="the losses, added up", decides="more weight for the largest loss", passes="1",
        state="T logarithms", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.GroupDRO(len(p.tasks), **k),
        formula=r"\sum_i q_i L_i,\quad q \propto q\, e^{\eta L}",
        promise="convex losses, small steps: the mean of the iterates tends to the smallest largest loss",
        when="the tasks are groups of one kind, in one unit, and the worst group counts",
        call="mtl.GroupDRO(2)",
    ),
    Method(
        "go4align", "GO4Align", "pace of the losses", "shen2024", "GO.1",
        sees="the losses now, and added up", decides="one weight for tasks of like size, larger for small losses",
        passes="1", state="T logarithms", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.GO4Align(len(p.tasks), **k),
        formula=r"\sum_i \bar w_{k(i)} L_i,\quad w_i = q_i \textstyle\sum_j L_j / L_i,\ q \propto q\, e^{-\eta L}",
        promise="none; with as many groups as tasks it is nearly real-time scaling",
        when="many tasks, some of them alike, and real-time scaling would be too restless",
        call="mtl.GO4Align(2, groups=2)",
    ),
    Method(
        "famo", "FAMO", "pace of the losses", "liu2023famo", "FA.1",
        sees="the losses before and after each step", decides="one share of every loss in a step",
        passes="1, and a forward pass", state="T logits, Adam's moments", gram=False, priorities="",
        chapter="13_weights_from_losses",
        make=lambda p, **k: methods.FAMO(len(p.tasks), **k),
        formula=r"c \sum_i z_i \log L_i,\quad z = \operatorname{softmax}(\xi)",
        promise="where ξ has settled, the losses fall by the same share in a step; units do not matter",
        when="many tasks, losses whose logarithms mean something, and one more forward pass is affordable",
        call="mtl.FAMO(2)",
    ),
    Method(
        "chebyshev", "Chebyshev", "a chosen point of the front", "", "CH.1",
        sees="the losses now", decides="the worst weighted loss alone", passes="1",
        state="none", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.Chebyshev(**k),
        formula=r"\max_i \lambda_i (L_i - z_i^*)",
        promise="every weakly Pareto optimal point is a minimum for some λ, on any front; the gradient jumps",
        when="as STCH, to see what the smoothing does",
        call="mtl.Chebyshev([0.5, 0.5])",
    ),
    Method(
        "stch", "STCH", "a chosen point of the front", "lin2024", "ST.1",
        sees="the losses now", decides="the worst weighted loss, smoothed", passes="1",
        state="none", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.STCH(0.1, **k),
        formula=r"\mu \log \sum_i e^{\lambda_i (L_i - z_i^*) / \mu}",
        promise="within μ log T of the largest weighted loss; between the sum (μ → ∞) and it (μ → 0)",
        when="the worst weighted loss counts, also where the front is not convex, and units are chosen with care",
        call="mtl.STCH(mu=0.1)",
    ),
    Method(
        "pbi", "PBI", "a chosen point of the front", "zhang2007", "PB.1",
        sees="the losses now", decides="how far they are along a ray, and away from it", passes="1",
        state="none", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.PBI(**k),
        formula=r"d_1 + \theta d_2",
        promise="a large θ holds the losses to the ratio λ; a weight may be negative, so a loss may be driven up",
        when="the ratio of the losses is to be chosen",
        call="mtl.PBI(theta=5.0)",
    ),
    Method(
        "cosmos", "COSMOS", "a chosen point of the front", "ruchte2021", "CM.1",
        sees="the losses now", decides="the weighted sum, less a reward for the ratio of the weights",
        passes="1", state="none", gram=False, priorities="", chapter="13_weights_from_losses",
        make=lambda p, **k: methods.COSMOS(**k),
        formula=r"\sum_i \lambda_i L_i - \kappa \cos(\lambda, L)",
        promise="none without the network that is told λ; a weight may be negative",
        when="one network shall learn a whole front, λ drawn for each batch and given to it",
        call="mtl.COSMOS(1.0, [0.5, 0.5])",
    ),
    Method(
        "imtl-l", "IMTL-L", "values of the losses", "liu2021imtl", "IL.1",
        sees="the losses now, slowly", decides="learned factors that make every loss one", passes="1",
        state="T learned numbers", gram=False, priorities="Σ vᵢ (e^{sᵢ} Lᵢ − sᵢ)",
        chapter="14_relatives", make=lambda p, **k: methods.IMTLL(len(p.tasks), **k),
        formula=r"\sum_i e^{s_i} L_i - s_i",
        promise="where s has settled, every scaled loss is 1, whatever its unit",
        when="as uncertainty weighting, whose double it is",
        call="mtl.IMTLL(2)", train=LEARNED,
    ),
    Method(
        "ntkmtl", "NTKMTL", "lengths of the gradients", "qin2025", "NT.1",
        sees="the length of each gradient", decides="making all equally long, and d as long as all together",
        passes="T", state="none", gram=True, priorities="Σ vᵢ wᵢ gᵢ",
        chapter="14_relatives", make=lambda p, **k: methods.NTKMTL(**k),
        formula=r"d = \sum_i \bigl(\sum_j \lVert g_j \rVert^2 / \lVert g_i \rVert^2\bigr)^{1/2} g_i",
        promise="the direction of normalised gradients; its length falls with theirs",
        when="as normalised gradients, where the step shall shrink near a minimum",
        call="mtl.NTKMTL()",
    ),
    Method(
        "gradvac", "GradVac", "conflicts of the gradients", "wang2021", "GV.1",
        sees="the angles between gradients, now and on average",
        decides="lifting an angle that is worse than it has been", passes="T",
        state="random order, T² mean cosines φ", gram=True, priorities="",
        chapter="14_relatives", make=lambda p, **k: methods.GradVac(**k),
        formula=r"d = \sum_i g_i', \quad \cos(g_i', g_j) \ge \varphi_{ij}",
        promise="as PCGrad where φ is 0; where tasks usually agree, they are made to",
        when="tasks whose gradients agree on average, as languages of one translation model",
        call="mtl.GradVac()",
    ),
    Method(
        "imtl-g", "IMTL-G", "equal gains", "liu2021imtl", "IG.1",
        sees="all inner products", decides="equal projections on every gradient, weights that sum to one",
        passes="T", state="none", gram=True, priorities="", chapter="14_relatives",
        make=lambda p, **k: methods.IMTLG(**k),
        formula=r"\langle g_i, d \rangle / \lVert g_i \rVert \text{ equal},\quad \sum_i \alpha_i = 1",
        promise="two tasks: the bisector. More: plus or minus ConFIG's direction, and minus raises every loss",
        when="you compare with its paper; ConFIG is the same direction with the right sign",
        call="mtl.IMTLG()",
    ),
    Method(
        "imtl", "IMTL", "equal gains", "liu2021imtl", "IT.1",
        sees="all inner products; each loss, slowly",
        decides="IMTL-G's direction for losses that learned factors make one", passes="T",
        state="T learned numbers", gram=False, priorities="", chapter="14_relatives",
        make=lambda p, **k: methods.IMTL(len(p.tasks), **k),
        formula=r"\langle g_i, d \rangle / \lVert g_i \rVert \text{ equal for the gradients of } e^{s_i} L_i",
        promise="as IMTL-G; the heads see losses of one size",
        when="you compare with its paper",
        call="mtl.IMTL(2)", train=LEARNED,
    ),
    Method(
        "primary", "PrimaryTask", "one task first", "su2022", "PR.1",
        sees="all inner products", decides="the closest direction to the primary task's that raises no other loss",
        passes="T", state="none", gram=True, priorities="", chapter="14_relatives",
        make=lambda p, **k: methods.PrimaryTask(first_by_name(p), **k),
        formula=r"\max_d \langle d, g_0 \rangle - \tfrac12 \lVert d \rVert^2, \quad "
        r"\langle d, g_i \rangle \ge 0",
        promise="a small enough plain step −ηd raises no loss of this batch; the primary one falls if it can",
        when="one task counts, and the others must not suffer",
        call="mtl.PrimaryTask(primary=0)",
    ),
    Method(
        "pcd", "PCD", "one task first", "varam2026", "PD.1",
        sees="all inner products", decides="the same with a margin for every other task", passes="T",
        state="T mean squared lengths", gram=True, priorities="", chapter="14_relatives",
        make=lambda p, **k: methods.PCD(first_by_name(p), **k),
        formula=r"\min_d \tfrac12 \lVert d - \tilde g_1 \rVert^2, \quad "
        r"\langle \tilde g_j, d \rangle \ge \tau \lVert \tilde g_j \rVert^2",
        promise="the other losses fall, to first order, where some direction lets them; the primary one may rise",
        when="one task counts, and the others must not stand still",
        call="mtl.PCD(primary=0)",
    ),
    Method(
        "krum", "Krum", "robust means", "blanchard2017", "KR.1",
        sees="the distances between gradients", decides="the gradient closest to its neighbours", passes="T",
        state="none", gram=True, priorities="", chapter="14_relatives",
        make=lambda p, **k: methods.Krum(**k),
        formula=r"\arg\min_i \sum_{j \text{ near } i} \lVert g_i - g_j \rVert^2",
        promise="none for tasks: it leaves out those that differ",
        when="the rows are workers of one loss, some of them faulty; not for tasks",
        call="mtl.Krum()",
    ),
    Method(
        "cr-mogm", "CR-MOGM", "common descent", "zhou2022", "CR.1", form="MGDA",
        sees="all inner products", decides="the mean over steps of another method's weights", passes="T",
        state="T mean weights", gram=True, priorities="", chapter="14_relatives",
        make=lambda p, **k: methods.CRMOGM(methods.MGDA(), **k),
        formula=r"d = \sum_i \lambda_i g_i, \quad \lambda \leftarrow a \lambda + (1 - a) \hat\lambda",
        promise="weights that change slowly; the inner method's promise of a single step is lost",
        when="batches are small, and the weights of the inner method jump from step to step",
        call="mtl.CRMOGM(mtl.MGDA())",
    ),
    Method(
        "graddrop", "GradDrop", "beyond the Gram matrix", "chen2020", "GD.1",
        sees="the sign of each entry", decides="keeping one sign in each entry, drawn by its share", passes="T",
        state="random signs", gram=False, priorities="", chapter="15_beyond_the_gram_matrix",
        make=lambda p, **k: methods.GradDrop(**k),
        formula=r"d_j = \sum_{i:\, \mathrm{sign}\, g_{ij} = s_j} g_{ij},\quad s_j \text{ drawn}",
        promise="the mean over its draws is the sum of the gradients; where all signs agree it is the sum itself",
        when="you want noise where the tasks disagree, and T backward passes are affordable",
        call="mtl.GradDrop()",
    ),
    Method(
        "trimmed", "trimmed mean", "beyond the Gram matrix", "yin2018", "TM.1",
        sees="the order of the gradients in each entry", decides="leaving out what stands alone", passes="T",
        state="none", gram=False, priorities="", chapter="15_beyond_the_gram_matrix",
        make=lambda p, **k: methods.TrimmedMean(**k),
        formula=r"d_j = \mathrm{mean}_i\, g_{ij} \text{ without the } k \text{ largest and smallest}",
        promise="k of 2k + 1 or more gradients, whatever they are, move no entry beyond those of the others",
        when="up to k of many gradients may be garbage, as of a task with broken labels",
        call="mtl.TrimmedMean()",
    ),
    Method(
        "moco", "MoCo", "beyond the Gram matrix", "fernando2023", "MO.1",
        sees="gradients tracked over the steps", decides="a slow walk to the shortest weighted mean", passes="T",
        state="T tracked gradients, T weights", gram=False, priorities="", chapter="15_beyond_the_gram_matrix",
        make=lambda p, **k: methods.MoCo(len(p.tasks), **k),
        formula=r"d = \sum_i \lambda_i y_i,\quad y_i \leftarrow y_i - \beta (y_i - g_i)",
        promise="fixed gradients and a small γ: d goes to MGDA's; with noise λ is less biased than MGDA's",
        when="you want MGDA with small batches, and have memory for T more gradients",
        call="mtl.MoCo(2)",
    ),
    Method(
        "dbmtl", "DB-MTL", "beyond the Gram matrix", "lin2023", "DB.1",
        sees="the lengths of gradients tracked over the steps", decides="making all as long as the longest",
        passes="T", state="T tracked gradients", gram=False, priorities="", chapter="15_beyond_the_gram_matrix",
        make=lambda p, **k: methods.DBMTL(**k),
        formula=r"d = \max_k \lVert \hat g_k \rVert \sum_i \hat g_i / \lVert \hat g_i \rVert,\quad "
        r"\hat g_i \text{ tracks } \nabla \log L_i",
        promise="the tracked gradients count alike, whatever the units, and are as long as the longest",
        when="as normalised gradients, with positive losses, small batches, and memory for T more gradients",
        call="mtl.DBMTL()",
    ),
    Method(
        "excess", "ExcessMTL", "beyond the Gram matrix", "he2024", "EX.1",
        sees="the size of each entry, now and so far", decides="following tasks that can still gain", passes="T",
        state="T sums of squares, T weights", gram=False, priorities="", chapter="15_beyond_the_gram_matrix",
        make=lambda p, **k: methods.ExcessMTL(len(p.tasks), **k),
        formula=r"d = \sum_i w_i g_i,\quad w_i \propto w_i\, e^{\eta E_i / E_i^{(0)}}",
        promise="weights follow the change of the gradients, not the value of the losses",
        when="some tasks have noisy labels, so that their losses stay large",
        call="mtl.ExcessMTL(2)",
    ),
    Method(
        "metabalance", "MetaBalance", "beyond the Gram matrix", "he2022", "MB.1",
        sees="the lengths of the gradients in each tensor, and which task is the primary one",
        decides="bringing the others near its length", passes="T",
        state="average lengths, a tensor and a task each", gram=False, priorities="",
        chapter="15_beyond_the_gram_matrix", make=lambda p, **k: methods.MetaBalance(len(p.tasks), **k),
        formula=r"G_i \leftarrow r\, \tfrac{m_0}{m_i} G_i + (1 - r)\, G_i \text{ in each tensor}",
        promise="r = 1, steady lengths: in no tensor does another task pull harder than the primary one",
        when="one task counts, and the others are there to help it",
        call="mtl.MetaBalance(2)",
    ),
    Method(
        "modo", "MoDo", "beyond the Gram matrix", "chen2023", "MD.1",
        sees="the products of gradients of two batches", decides="a slow walk to the shortest weighted mean",
        passes="T for each of two batches", state="T weights", gram=False, priorities="",
        chapter="15_beyond_the_gram_matrix", make=lambda p, **k: methods.MoDo(len(p.tasks), **k),
        formula=r"d = J^\top \lambda,\quad \lambda \leftarrow \Pi_\Delta(\lambda - \gamma J_1 J_2^\top \lambda)",
        promise="the slope for λ is right on average, however small the two batches are; with one batch it is not",
        when="as MoCo, without its memory, if two batches a step are affordable",
        call="mtl.MoDo(2)",
    ),
    Method(
        "sdmgrad", "SDMGrad", "beyond the Gram matrix", "xiao2023", "SD.1",
        sees="the products of gradients of two batches", decides="as MoDo, pulled to the mean",
        passes="T for each of two batches", state="T weights", gram=False, priorities="",
        chapter="15_beyond_the_gram_matrix", make=lambda p, **k: methods.SDMGrad(len(p.tasks), **k),
        formula=r"d \propto g_w + \lambda g_0,\quad w \to \arg\min_\Delta \lVert g_w + \lambda g_0 \rVert",
        promise="without noise, settled weights: CAGrad's direction for one of its c",
        when="as CAGrad, with small batches, if two of them a step are affordable",
        call="mtl.SDMGrad(2)",
    ),
)  # fmt: skip

METHODS = {row.key: row for row in ROWS}


def upper_bound(row: Method) -> Method:
    """The same method at the representation ("upper bound"): one pass through the encoder, whatever T is."""
    first, *rest = row.key.split("-")
    return replace(
        row,
        key="-".join([first, "ub", *rest]),
        title=f"{row.title} (UB)" if " " in row.title else f"{row.title}-UB",
        sees=f"{row.sees}, at the representation",
        passes="1",
        promise="one pass through the encoder, whatever T is; a step may raise a loss of the batch",
        when=f"as {row.title}, with many tasks and heads that are light beside the encoder",
        chapter="08_mgda_ub",
        formula=row.formula.replace("g_i", "h_i"),
        train={**row.train, "features": True},
    )


CONTESTANTS = {  # what a benchmark runs: every method, and two rows that are many runs each
    "equal": METHODS["equal"],
    "fixed": replace(METHODS["fixed"], title="searched weights"),
    "single": replace(METHODS["fixed"], key="single", title="single tasks", decides="a network for each task"),
}
CONTESTANTS |= {row.key: row for row in ROWS if row.key not in CONTESTANTS}
CONTESTANTS |= {row.key: row for row in map(upper_bound, ROWS) if row.gram}
