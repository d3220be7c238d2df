"""Slow implementations written from the definitions alone: tests and benchmarks compare with them."""

import numpy as np


def runs(mask):
    """Inclusive [first, last] of each run of true points."""
    found, first = [], None
    for i, value in enumerate(mask):
        if value and first is None:
            first = i
        if not value and first is not None:
            found.append((first, i - 1))
            first = None
    return [*found, (first, len(mask) - 1)] if first is not None else found


def vus_by_definition(scores, labels, buffer, n_thresholds=250):
    """VUS-PR and VUS-ROC by a loop over buffers and thresholds; one series."""
    n, events, n_true = len(labels), runs(labels), int(np.sum(labels))
    falling = np.sort(scores)[::-1]
    thresholds = falling[np.linspace(0, n - 1, n_thresholds).astype(int)]
    pr, roc = [], []
    for l in range(buffer + 1):  # noqa: E741 - the paper's symbol
        half = l // 2
        soft = np.asarray(labels, dtype=float)
        for s, e in events:
            for t in range(e + 1, min(e + half, n - 1) + 1):
                soft[t] += np.sqrt(1 - (t - e) / l)
            for t in range(max(s - half, 0), s):
                soft[t] += np.sqrt(1 - (s - t) / l)
        soft = np.minimum(soft, 1)
        regions = []
        for s, e in events:
            if regions and s - half <= regions[-1][1]:
                regions[-1][1] = min(e + half, n - 1)
            else:
                regions.append([max(s - half, 0), min(e + half, n - 1)])
        tpr, fpr, precision = [0.0], [0.0], []
        for threshold in thresholds:
            predicted = scores >= threshold
            weight = np.where(labels, 1.0, soft * predicted)
            hits = np.sum(weight * predicted)
            positive = (n_true + np.sum(weight)) / 2
            existence = np.mean([predicted[s : e + 1].any() for s, e in regions])
            tpr.append(min(hits / positive, 1) * existence)
            fpr.append((predicted.sum() - hits) / (n - positive))
            precision.append(hits / predicted.sum())
        pr.append(sum((tpr[k + 1] - tpr[k]) * precision[k] for k in range(n_thresholds)))
        tpr, fpr = [*tpr, 1.0], [*fpr, 1.0]
        roc.append(sum((fpr[k + 1] - fpr[k]) * (tpr[k + 1] + tpr[k]) / 2 for k in range(len(tpr) - 1)))
    return np.mean(pr), np.mean(roc)


def best_f1_by_search(scores, labels):
    """Largest F1 over all distinct scores, highest threshold first."""
    best = (-1.0, None)
    for threshold in sorted(set(scores), reverse=True):
        predicted = scores >= threshold
        hits = np.sum(predicted & labels)
        f1 = 2 * hits / (predicted.sum() + labels.sum())
        if f1 > best[0]:
            best = (f1, threshold)
    return best


def affiliation_by_sampling(predicted, labels, steps=24):
    """Affiliation precision and recall on a grid of `steps` samples per point; one series."""
    n, events = len(labels), runs(labels)
    grid = (np.arange(n * steps) + 0.5) / steps
    alarm = np.repeat(predicted, steps)
    precision, recall = [], []
    for j, (s, e) in enumerate(events):
        low = (events[j - 1][1] + 1 + s) / 2 if j else 0
        high = (e + 1 + events[j + 1][0]) / 2 if j + 1 < len(events) else n
        zone = (grid > low) & (grid < high)
        x = grid[zone]
        distance = np.maximum(np.maximum(s - x, x - (e + 1)), 0)
        hit = alarm[zone]
        if not hit.any():
            recall.append(0.0)
            continue
        precision.append(np.mean([np.mean(distance >= d) for d in distance[hit]]))
        chances = []
        for y in x[(x > s) & (x < e + 1)]:
            nearest = np.min(np.abs(x[hit] - y))
            chances.append(np.mean(np.abs(x - y) >= nearest))
        recall.append(np.mean(chances))
    return (np.mean(precision) if precision else np.nan), np.mean(recall)


def range_precision_recall(predicted, labels):
    """Tatbul's precision (alpha 0) and recall (alpha 0.2), flat bias, cardinality 1 / overlaps."""

    def mean_reward(ranges, others, alpha):
        rewards = []
        for s, e in ranges:
            common = [min(e, b) - max(s, a) + 1 for a, b in others if a <= e and b >= s]
            overlap = sum(common) / (e - s + 1) / max(len(common), 1)
            rewards.append(alpha * bool(common) + (1 - alpha) * overlap)
        return np.mean(rewards)

    true, alarms = runs(labels), runs(predicted)
    return mean_reward(alarms, true, 0.0), mean_reward(true, alarms, 0.2)


def pa_k_by_loop(predicted, labels, k):
    """F1 after filling each event of which more than k percent was hit."""
    adjusted = predicted.copy()
    for s, e in runs(labels):
        if 100 * predicted[s : e + 1].sum() > k * (e - s + 1):
            adjusted[s : e + 1] = True
    return 2 * np.sum(adjusted & labels) / (adjusted.sum() + labels.sum())


def random_runs(rng, n, share=0.3):
    """A random mask of runs of all lengths, of which some touch the borders or are one point apart."""
    edges = np.sort(rng.choice(n + 1, size=rng.integers(2, max(3, int(n * share))), replace=False))
    mask = np.zeros(n, dtype=bool)
    for start, end in zip(edges[::2], edges[1::2], strict=False):
        mask[start:end] = True
    return mask


def draw_classes(seed=0, N=300, K=4, ties=False):
    """Classes of falling frequency, and probabilities that lean towards them."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.5, N) - 1, K - 1)
    logits = rng.normal(size=(N, K))
    logits[np.arange(N), labels] += 1.2
    if ties:
        logits = np.round(logits)
    powers = np.exp(logits)
    return labels, powers / powers.sum(1, keepdims=True)
