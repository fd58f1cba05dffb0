"""SPDInv: the fixed point of each step up is searched by gradient descent on its residual.

The published loop takes AdamW, whose weight decay pulls the latents to zero, tests the residual
after an update and keeps the last iterate; here the optimiser is Adam, the test comes first and
the iterate of the least residual is kept (``compat``: as published). On the way back the source
prompt stands in for the empty text, as published.

Paper: Source Prompt Disentangled Inversion for Boosting Image Editability with Diffusion Models
(arXiv 2403.11105), section 3.3: minimise ``|f(z_t) - z_t|^2`` from DDIM's ``z_t``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser import ClassifierFree, Denoiser
from ..fixed_point import enter, image
from ..inverter import Cost, Inverter, Recording, frozen, inverters
from ..registry import setting
from ..sampling import Progress, Replay, climb, quiet
from ..schedule import Schedule, Step
from .negative_prompt import SourceAsUncond
from .null_text import one_photo


@inverters.register("spdinv")
class SPDInv(Inverter):
    """Gradient descent on the fixed-point residual of every step up: slow, needs gradients."""

    paper = "Source Prompt Disentangled Inversion, arXiv 2403.11105"
    needs_grad = True
    owns_uncond = True

    inner_steps: int = setting(25, "Adam steps a timestep, at most", low=0, high=1000)
    early_stop: float = setting(
        5e-6, "mean squared residual at which a timestep is done", low=0, high=1
    )
    lr: float = setting(1e-3, "Adam's learning rate", low=0, high=1)
    compat: bool = setting(
        False,
        "the published loop: weight decay, the test after an update, the last iterate",
    )

    def cost(self, steps: int) -> Cost:
        inner = self.inner_steps * steps
        return Cost(2 * steps + inner, inner)

    def invert(
        self,
        x0: Tensor,
        denoiser: Denoiser,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = quiet,
    ) -> Recording:
        x0, losses = x0.float(), []
        photos = [one_photo(denoiser, b) for b in range(denoiser.branches)]
        for photo in photos:
            photo.guide = ClassifierFree(1.0)

        def move(below: Tensor, step: Step) -> Tensor:
            found = [
                self._search(below[b : b + 1], x0[b : b + 1], step, photo)
                for b, photo in enumerate(photos)
            ]
            losses.append(torch.stack([loss for _, loss in found]))
            return torch.cat([x for x, _ in found])

        with frozen(denoiser.model):
            path = climb(x0, schedule, move, progress=progress, stage=f"{self.name} inversion")
        denoiser.rows_seen += sum(p.rows_seen for p in photos)
        denoiser.rows_backward += sum(p.rows_backward for p in photos)
        return Recording(path, {"losses": torch.stack(losses[::-1])})

    def replay(self, trajectory: Tensor, tape: dict[str, Tensor]) -> Replay:
        return SourceAsUncond(trajectory)

    def target(
        self, out: Tensor, x: Tensor, below: Tensor, x0: Tensor, step: Step, prediction: str
    ) -> Tensor:
        """What the iterate should be: its image under the fixed-point map, [1, C, h, w].

        Args:
            out: network output at ``x``.
            x: the iterate.
            below: latents at ``step.clean``.
            x0: the photo's latents.
            step: the step that is undone.
            prediction: what the network predicts.
        """
        return image(out, x, below, step, prediction)

    def _search(
        self, below: Tensor, x0: Tensor, step: Step, photo: Denoiser
    ) -> tuple[Tensor, Tensor]:
        """The latents [1, C, h, w] at ``step.noisy`` and their mean squared residual."""
        layout, kind = photo.full_layout(), photo.prediction
        with torch.no_grad():
            start = enter(photo.predict(below, step, layout), below, step, kind)
        x = start.clone().requires_grad_(True)
        decay = 0.01 if self.compat else 0.0
        adam = torch.optim.AdamW([x], lr=self.lr, weight_decay=decay)
        best, least = start, torch.tensor(torch.inf)
        for j in range(self.inner_steps + (0 if self.compat else 1)):
            with torch.set_grad_enabled(j < self.inner_steps):
                goal = self.target(photo.predict(x, step, layout), x, below, x0, step, kind)
                loss = torch.nn.functional.mse_loss(x, goal)
            found = loss.detach().cpu()
            if self.compat or found < least:
                best, least = x.detach().clone(), found
            done = bool(found < self.early_stop)
            if j == self.inner_steps or (done and not self.compat):
                break
            x.grad = torch.autograd.grad(loss, x)[0]
            photo.rows_backward += 1
            adam.step()
            if self.compat:
                best = x.detach().clone()
                if done:
                    break
        return best, least.nan_to_num(posinf=3e38)
