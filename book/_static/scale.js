// One loss changes its unit: which directions turn, and which do not.
{
  const { html, svg, digits, pen, slider, link, arrow, names, polar } = playground;
  const ORIGIN = [260, 280];

  playground.start("scale", (place, read, save) => {
    const chosen = new Set((read("m") ?? "equal,realtime,normalized,pcgrad,mgda,unit-upgrad").split(","));
    let angle = Number(read("angle") ?? 120);
    let unit = Number(read("unit") ?? 10);

    const picture = svg("svg", { viewBox: "0 0 600 340", role: "img" });

    /** Gradients and losses when the first loss is multiplied by a factor. */
    const state = (factor) => ({ J: [[factor, 0], polar(1.5, angle)], L: [factor, 2] });

    const draw = () => {
      const [before, after] = [1, unit].map(state);
      const found = playground.picked(chosen).map((row) => {
        const [d, e] = [before, after].map(({ J, L }) => playground.step(row.key, J, L).d);
        const [was, is] = [d, e].map((x) => Math.hypot(...x));
        const turned = Math.atan2(d[0] * e[1] - d[1] * e[0], d[0] * e[0] + d[1] * e[1]);
        const still = Math.abs(turned) < 1e-6;
        return { row, d: e, degrees: still ? 0 : (turned * 180) / Math.PI, longer: is / was, still };
      });
      const at = ([x, y]) => {
        const size = 190 / Math.hypot(x, y);
        return [ORIGIN[0] + size * x, ORIGIN[1] - size * y];
      };
      const arrows = [
        ...found.map((f) => [at(f.d), pen(f.row), f.row.name]),
        ...after.J.map((g, i) => [at(g), playground.black, `g${"₁₂"[i]}`]),
      ];
      picture.replaceChildren(
        ...arrows.flatMap(([tip, look]) => arrow(ORIGIN, tip, look)),
        ...names(ORIGIN, arrows.toReversed()),
      );
      const still = found.filter((f) => f.still).map((f) => f.row.name);
      const turns = found.filter((f) => !f.still).map((f) => f.row.name);
      const words = [`Turns: ${turns.join(", ") || "none"}`, `does not turn: ${still.join(", ") || "none"}`];
      said.textContent = `Loss 1 times ${digits(unit)}. ${words.join("; ")}.`;
      const about = `Directions, all drawn equally long, of gradients at ${digits(angle)} degrees`;
      picture.setAttribute("aria-label", `${about}, the first loss multiplied by ${digits(unit)}.`);
      sliders[0].show(Math.log10(unit));
      sliders[1].show(angle);
      playground.fill(table, ["method", "turns by", "length times", "verdict"], found.map((f) => [
        link(f.row),
        `${digits(f.degrees)}°`,
        digits(f.longer),
        f.still ? "does not turn" : html("b", {}, "turns"),
      ]));
      code.textContent = playground.directions(after.J, after.L, found.map((f) => [f.row.call, f.d]));
      save({ unit, angle, m: [...chosen] });
    };

    const sliders = [
      slider("loss 1 times", [-3, 3, 0.01], (x) => digits(10 ** x), (x) => {
        unit = Number((10 ** x).toPrecision(3));
        draw();
      }),
      slider("angle between", [1, 179, 1], (x) => `${digits(x)} degrees`, (x) => {
        angle = x;
        draw();
      }),
    ];
    const shown = html("div", {}, ...sliders.map((s) => s.element));
    const { said, table, code } =
      playground.frame(place, [], picture, [shown], chosen, draw, "Which directions turn");
    draw();
  });
}
