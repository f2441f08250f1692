"""Make gestures.csv, the sample of labelled series: simulated strokes of a hand, by a fixed seed.

    python sample_data/make_gestures.py

Each series is one gesture, recorded 25 times a second by an accelerometer (two axes) and a gyroscope (one). Its
size, speed, duration, noise and the way the sensor is held differ, so that no single value tells the gestures apart.
"""

from __future__ import annotations

import csv
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

SEED = 20240501
COUNTS = {"circle": 30, "swipe": 30, "shake": 24, "tap": 12}
"""Gesture -> recordings; taps are rare."""
RATE = 25
"""Readings a second."""
MISSING = 0.02
"""Share of the readings that were lost; each channel also loses one stretch in some recordings."""
HANDS = ("left", "right")


def motion(gesture: str, phase: np.ndarray, speed: float) -> np.ndarray:
    """[3, steps] acceleration along x and y [m/s²] and turning rate [rad/s], over `phase` from 0 to 1."""
    turn = 2 * np.pi * phase
    envelope = np.sin(np.pi * phase)  # a hand starts and ends at rest
    if gesture == "circle":
        return np.stack([np.cos(turn), np.sin(turn), 0.9 * envelope])
    if gesture == "swipe":
        return np.stack([np.sin(turn) * envelope, 0.25 * np.sin(turn), 0.2 * np.sin(turn)])
    if gesture == "shake":
        fast = np.sin((4 + 3 * speed) * turn) * envelope
        return np.stack([fast, 0.3 * fast, 0.3 * np.cos(4 * turn) * envelope])
    blow = np.exp(-0.5 * np.square((phase - 0.3 - 0.4 * speed) / 0.04))
    return np.stack([0.2 * blow, 1.8 * blow, 0.1 * blow])


def recording(gesture: str, hand: str, random: np.random.Generator) -> np.ndarray:
    """[steps, 3] readings of one gesture; missing ones NaN."""
    steps = int(random.integers(22, 76))
    speed, size, tilt = random.random(), random.uniform(0.6, 1.6), random.normal(0, 0.25)
    x, y, z = size * motion(gesture, np.linspace(0, 1, steps), speed)
    x = x if hand == "right" else -x
    turned = np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt), z])  # [3, steps]
    readings = (turned + random.normal(0, 0.22, turned.shape) + random.normal(0, 0.15, (3, 1))).T  # [steps, 3]
    readings[random.random(readings.shape) < MISSING] = np.nan
    if random.random() < 0.15:
        begin = int(random.integers(0, steps - 6))
        readings[begin : begin + 6, random.integers(0, 3)] = np.nan
    return readings


def main() -> None:
    random = np.random.default_rng(SEED)
    gestures = [gesture for gesture, count in COUNTS.items() for _ in range(count)]
    begin = datetime(2024, 5, 1, 10)
    with Path(__file__).with_name("gestures.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["series_id", "timestamp", "acc_x", "acc_y", "gyro_z", "hand", "gesture"])
        for number, place in enumerate(random.permutation(len(gestures)).tolist(), start=1):
            hand = HANDS[int(random.integers(2))]
            readings = recording(gestures[place], hand, random)
            begin += timedelta(seconds=int(random.integers(5, 40)))
            for step, values in enumerate(readings.tolist()):
                time = (begin + timedelta(milliseconds=1000 // RATE * step)).isoformat(" ", "milliseconds")
                cells = ["" if value != value else f"{value:.3f}" for value in values]
                table.writerow([f"r{number:02d}", time, *cells, hand, gestures[place]])


if __name__ == "__main__":
    main()
