// What a method makes of the gradients' Gram matrix M and of the losses L: the weights α of d = Σ αᵢ gᵢ.
// A line has the tag of the Python line that computes the same; tests/test_playground.py holds the two together.
const playground = {};
{
  const RANK = 1e-12; // an eigenvalue below this share of the largest one is rounding
  const sum = (v) => v.reduce((a, b) => a + b, 0);
  const dot = (a, b) => sum(a.map((x, i) => x * b[i]));
  const times = (A, v) => A.map((row) => dot(row, v));
  const diagonal = (M) => M.map((row, i) => row[i]);
  const unit = (T, i) => Array.from({ length: T }, (_, j) => Number(i === j));
  const scaled = (M, s) => M.map((row, i) => row.map((x, j) => x * s[i] * s[j]));
  const without = (v, norms) => v.map((x, i) => (norms[i] > 0 ? x / norms[i] : x));
  const pick = (v, set) => v.filter((_, i) => set[i]);
  const block = (M, set) => pick(M, set).map((row) => pick(row, set));

  /** J Jᵀ. */
  const gram = (J) => J.map((g) => J.map((h) => dot(g, h)));

  /** The lengths of the gradients, and the cosines between them; 0 where a gradient is zero. */
  const unitGram = (M) => {
    const norms = diagonal(M).map(Math.sqrt);
    const C = M.map((row, i) => without(row, norms).map((x) => (norms[i] > 0 ? x / norms[i] : x)));
    return [norms, C];
  };

  /** The x with A x = b, by elimination. */
  const solve = (A, b) => {
    const rows = A.map((row, i) => [...row, b[i]]);
    const n = b.length;
    for (let k = 0; k < n; k++) {
      let p = k;
      for (let i = k; i < n; i++) if (Math.abs(rows[i][k]) > Math.abs(rows[p][k])) p = i;
      [rows[k], rows[p]] = [rows[p], rows[k]];
      for (let i = k + 1; i < n; i++) {
        const factor = rows[i][k] / rows[k][k];
        rows[i] = rows[i].map((x, j) => x - factor * rows[k][j]);
      }
    }
    const x = Array(n).fill(0);
    for (let k = n - 1; k >= 0; k--) x[k] = (rows[k][n] - dot(rows[k].slice(0, n), x)) / rows[k][k];
    return x;
  };

  /** Eigenvalues, ascending, and eigenvectors, a row each, of a symmetric matrix: Jacobi's rotations. */
  const eigh = (M) => {
    const A = M.map((row) => [...row]);
    const n = A.length;
    const V = A.map((_, i) => unit(n, i));
    for (let sweep = 0; sweep < 30; sweep++)
      for (let p = 0; p < n; p++)
        for (let q = p + 1; q < n; q++) {
          if (A[p][q] === 0) continue;
          const theta = (A[q][q] - A[p][p]) / (2 * A[p][q]);
          const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
          const c = 1 / Math.hypot(t, 1);
          const turn = (u, v) => [u.map((x, k) => c * (x - t * v[k])), u.map((x, k) => c * (t * x + v[k]))];
          [A[p], A[q]] = turn(A[p], A[q]);
          for (const row of A) [row[p], row[q]] = [c * (row[p] - t * row[q]), c * (t * row[p] + row[q])];
          A[p][q] = A[q][p] = 0;
          [V[p], V[q]] = turn(V[p], V[q]);
        }
    const order = diagonal(A).map((x, i) => [x, V[i]]).sort((a, b) => a[0] - b[0]);
    return [order.map((pair) => pair[0]), order.map((pair) => pair[1])];
  };

  /** C⁺ 1, as pinv has it. */
  const inverseOfOnes = (C) => {
    const [values, vectors] = eigh(C);
    const least = RANK * Math.max(...values.map(Math.abs));
    const parts = values.map((x, k) => (Math.abs(x) > least ? sum(vectors[k]) / x : 0));
    return C.map((_, i) => sum(parts.map((part, k) => part * vectors[k][i])));
  };

  /** How far rounding may have moved the eigenvalues, and C with it on the diagonal. */
  const ridged = (C) => {
    const ridge = Math.max(C.length * Number.EPSILON, -2 * eigh(C)[0][0]);
    return [ridge, C.map((row, i) => row.map((x, j) => (i === j ? x + ridge : x)))];
  };

  /** The z ≥ 0 that is least in ½ zᵀ C z + innerᵀ z. */
  const leastPush = (C, inner, ridge) => {
    const visited = new Set();
    let z = inner.map(() => 0);
    let support = inner.map(() => false);
    for (;;) {
      const slack = times(C, z).map((x, i) => inner[i] + x); // (DC.2)
      const newcomers = slack.map((x, i) => !support[i] && x < -ridge * (1 + sum(z)));
      if (!newcomers.some(Boolean) || visited.has(String(support))) return z;
      visited.add(String(support));
      support = support.map((inside, i) => inside || newcomers[i]);
      for (;;) {
        const aim = solve(block(C, support), pick(inner, support).map((x) => -x)); // (DC.3)
        const target = support.map((inside) => (inside ? aim.shift() : 0));
        if (target.every((x) => x >= 0)) {
          z = target;
          break;
        }
        const steps = z.map((x, i) => (target[i] < 0 ? x / (x - target[i]) : Infinity));
        const least = Math.min(...steps);
        z = z.map((x, i) => Math.max(x + least * (target[i] - x), 0)); // (DC.4)
        support = support.map((inside, i) => inside && steps[i] > least);
      }
    }
  };

  /** The weights of the shortest vector in the convex hull of the gradients. */
  const minNorm = (M) => {
    const zero = diagonal(M).map((x) => Number(x < 1000 * Number.MIN_VALUE));
    if (sum(zero)) return zero.map((x) => x / sum(zero));
    const [norms, C] = unitGram(M);
    const b = norms.map((x) => Math.min(...norms) / x);
    const [ridge, strictlyConvex] = ridged(C);
    // the minimum of yᵀ C y with b·y = 1 is in the direction of this one, which the dual cone needs too
    const z = leastPush(strictlyConvex, b.map((x) => -x), ridge);
    const y = z.map((x) => x / dot(b, z)); // (MN.3)
    return y.map((x, i) => x * b[i]);
  };

  /** The coordinates of the projection of Uᵀ e on the dual cone, where no loss rises. */
  const ontoDualCone = (cosines, e) => {
    const [ridge, C] = ridged(cosines);
    return leastPush(C, times(C, e), ridge).map((z, i) => e[i] + z);
  };

  /** The α > 0 of M α = 1/α; 0 where nothing can be gained without loss. */
  const bargain = (M) => {
    const [norms, all] = unitGram(M);
    const there = norms.map((x) => x > 0);
    const C = block(all, there);
    const T = C.length;
    const w = T ? minNorm(C) : [];
    if (dot(w, times(C, w)) <= 100 * T * Number.EPSILON) return norms.map(() => 0);
    let beta = C.map((row) => Math.max(sum(row), 1 / T) ** -0.5);
    let last = Infinity;
    for (let step = 0; step < 200; step++) {
      const gain = times(C, beta);
      const asked = beta.map((x) => 1 / x); // (BG.1)
      const error = Math.max(...gain.map((x, i) => Math.abs((x - asked[i]) / asked[i])));
      if (error <= 1e-12 || (error < 1e-8 && error >= last)) break;
      last = error;
      const hessian = C.map((row, i) => row.map((x, j) => (i === j ? x + asked[i] / beta[i] : x))); // (BG.2)
      const change = solve(hessian, asked.map((x, i) => x - gain[i]));
      const length = 1 / Math.max(1, 2 * Math.max(...change.map((x, i) => Math.abs(x / beta[i]))));
      beta = beta.map((x, i) => x + length * change[i]); // (BG.3)
    }
    return without(there.map((inside) => (inside ? beta.shift() : 0)), norms);
  };

  /** Where a falling function is zero, between low and high: regula falsi, Illinois. */
  const root = (f, low, high) => {
    let [atLow, atHigh, side] = [f(low), f(high), 0];
    if (atLow <= 0) return low;
    if (atHigh >= 0) return high;
    const enough = 1e-14 * Math.max(atLow, -atHigh);
    let x = low;
    for (let step = 0; step < 100; step++) {
      x = (low * atHigh - high * atLow) / (atHigh - atLow);
      const value = f(x);
      if (Math.abs(value) <= enough || high - low <= 1e-14 * high) break;
      if (value > 0) {
        [low, atLow] = [x, value];
        if (side > 0) atHigh /= 2;
      } else {
        [high, atHigh] = [x, value];
        if (side < 0) atLow /= 2;
      }
      side = value > 0 ? 1 : -1;
    }
    return x;
  };

  const cagrad = (M, c) => {
    const mean = M.map(() => 1 / M.length);
    const length = (w) => Math.sqrt(Math.max(dot(w, times(M, w)), 0));
    const radius = c * length(mean);
    if (radius === 0) return mean;
    const b = times(M, mean);
    const entry = (x, i, j, lam) => x + lam * (b[i] + b[j]) + lam ** 2 * dot(b, mean);
    const shifted = (lam) => M.map((row, i) => row.map((x, j) => entry(x, i, j, lam)));
    const weights = (lam) => minNorm(shifted(lam)); // (CA.1)
    const longest = Math.sqrt(Math.max(...diagonal(M)));
    const shortest = Math.max(length(minNorm(M)), 1e-8 * longest);
    const lam = root((x) => length(weights(x)) - x * radius, shortest / radius, longest / radius); // (CA.2)
    return weights(lam).map((w, i) => mean[i] + w / lam); // (CA.3)
  };

  const config = (M) => {
    const [norms, C] = unitGram(M);
    const y = inverseOfOnes(C); // (CN.1)
    const cosine = times(C, y);
    const square = dot(y, cosine);
    if (square <= RANK) return y.map(() => 0);
    const length = dot(norms, cosine) / square; // (CN.2)
    return without(y.map((x) => length * x), norms); // (CN.3)
  };

  const imtlg = (M) => {
    const [norms, C] = unitGram(M);
    const y = inverseOfOnes(C); // (IG.1)
    if (dot(y, times(C, y)) <= RANK) return y.map(() => 0); // no mixture has equal products
    const alpha = without(y, norms); // (IG.2)
    const total = sum(alpha);
    if (Math.abs(total) <= RANK * sum(alpha.map(Math.abs))) return y.map(() => 0);
    return alpha.map((x) => x / total); // (IG.3)
  };

  const aligned = (M) => {
    const [squares, V] = eigh(M); // (AL.1)
    const kept = squares.map((x) => x > RANK * squares.at(-1));
    const sigma = pick(squares, kept).map(Math.sqrt);
    const Q = pick(V, kept);
    const entry = (i, j) => sum(Q.map((q, k) => (sigma[0] * q[i] * q[j]) / sigma[k])); // (AL.2)
    const B = M.map((_, i) => M.map((_, j) => entry(i, j)));
    return B.map(sum); // (AL.3)
  };

  const pcgrad = (M, orders) => {
    const C = M.map((_, i) => unit(M.length, i)); // (PC.1)
    C.forEach((row, i) => {
      let inner = [...M[i]];
      for (const j of orders[i]) {
        if (j === i || inner[j] >= 0) continue;
        const share = inner[j] / M[j][j];
        row[j] -= share; // (PC.3)
        inner = inner.map((x, k) => x - share * M[j][k]); // (PC.2)
      }
    });
    return M.map((_, j) => sum(C.map((row) => row[j]))); // (PC.4)
  };

  const mgda = (M, s) => {
    const alpha = minNorm(scaled(M, s)); // (MG.1)
    return alpha.map((x, i) => x * s[i]); // (MG.2)
  };
  const perLength = (M) => diagonal(M).map((x) => (x > 0 ? 1 / Math.sqrt(x) : 1)); // (MG.3)
  const perLoss = (L, s) => L.map((x, i) => s[i] / x); // (MG.4)

  const upgrad = (M) => {
    const [norms, C] = unitGram(M);
    const projected = C.map((_, i) => ontoDualCone(C, unit(C.length, i))); // (DC.1)
    const alpha = C.map((_, j) => sum(norms.map((norm, i) => (norm * projected[i][j]) / C.length))); // (UP.1)
    return without(alpha, norms);
  };

  const normalized = (M, inner) => {
    const [norms, C] = unitGram(M);
    const alpha = inner(C); // (NO.1)
    return without(alpha, norms); // (NO.2)
  };

  const softmax = (x) => {
    const e = x.map((value) => Math.exp(value - Math.max(...x)));
    return e.map((value) => value / sum(e));
  };

  const famo = (L) => {
    const z = softmax(L.map(() => 0)); // (FA.1)
    const c = 1 / sum(z.map((x, i) => x / L[i])); // (FA.2)
    return z.map((x, i) => (c * x) / L[i]); // (FA.3)
  };

  const stch = (L, mu) => {
    const w = 1 / L.length;
    return softmax(L.map((x) => (w * x) / mu)).map((share) => share * w); // (ST.1)
  };

  /** From M, L and, for PCGrad, the order in which each gradient meets the others, to α; the catalogue's keys. */
  playground.methods = {
    "equal": (M) => M.map(() => 1 / M.length), // (WS.2)
    "realtime": (M, L) => L.map((x) => 1 / x), // (RS.1)
    "normalized": (M) => diagonal(M).map((x) => (x > 0 ? 1 / Math.sqrt(x) : 0)), // (GN.1) (GN.4)
    "pcgrad": (M, L, orders) => pcgrad(M, orders),
    "mgda": (M) => mgda(M, M.map(() => 1)),
    "mgda-l2": (M) => mgda(M, perLength(M)),
    "mgda-loss": (M, L) => mgda(M, perLoss(L, L.map(() => 1))),
    "mgda-loss+": (M, L) => mgda(M, perLoss(L, perLength(M))),
    "config": config,
    "nash": bargain, // (NA.1)
    "upgrad": upgrad,
    "cagrad": (M) => cagrad(M, 0.5),
    "aligned": aligned,
    "unit-upgrad": (M) => normalized(M, upgrad),
    "famo": (M, L) => famo(L),
    "stch": (M, L) => stch(L, 0.1),
    "imtl-g": imtlg,
  };

  /** One of the two orders: each gradient meets the others from the first to the last, or from the last. */
  playground.orders = (T, backwards) => {
    const order = unit(T, 0).map((_, j) => (backwards ? T - 1 - j : j));
    return order.map(() => order);
  };

  /** The weights of a method, its direction, and how fast each loss falls along it; NaN if a loss must be > 0. */
  playground.step = (key, J, L, orders = playground.orders(J.length)) => {
    const divides = ["realtime", "mgda-loss", "mgda-loss+", "famo"].includes(key);
    const defined = Math.min(...L) > 0 || !divides;
    const alpha = defined ? playground.methods[key](gram(J), L, orders) : L.map(() => NaN);
    const d = J[0].map((_, k) => sum(alpha.map((a, i) => a * J[i][k])));
    return { alpha, d, falls: times(J, d) };
  };
}
