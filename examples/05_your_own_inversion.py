"""A new inversion is one class and one registration: here, DDIM that asks at two timesteps."""

from inversion import Recording, inverters, setting
from inversion.inverter import Inverter
from inversion.methods.ddim import walk_up
from p2p_real import Editor
from p2p_real.tabletop import PHOTOS


@inverters.register("two-times")
class TwoTimes(Inverter):
    """DDIM inversion with the path averaged over both ways of asking the network."""

    paper = "an example"
    share: float = setting(0.5, "weight of asking at the timestep that is left", low=0, high=1)

    def invert(self, x0, denoiser, schedule, *, generator=None, progress=lambda *a: None):
        entered = walk_up(x0, denoiser, schedule, progress=progress)
        left = walk_up(x0, denoiser, schedule, departure=True, progress=progress)
        return Recording(entered.lerp(left, self.share))


if __name__ == "__main__":
    editor = Editor.load("tabletop", cache=False)
    for share in (0.0, 0.5, 1.0):
        made = editor.invert(
            PHOTOS / "blue_cube.png", method="two-times", share=share, guidance_scale=1, steps=20
        )
        print(f"share {share}: {made.extra['reconstruction_psnr']:.2f} dB")
