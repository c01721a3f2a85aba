"""A cart-pole without speeds, learned online with a memory; needs `pip install 'foretrace[rl]'`.

    python examples/agent.py 500 runs/cartpole

plays 500 episodes, and saves all that continues every 50 of them. Stop it, kill it, type it again: it goes
on as if nothing had happened.
"""

import sys
from pathlib import Path

import gymnasium
import jax
import numpy as np

import foretrace as ft
from foretrace import rl

episodes, folder = int(sys.argv[1]), Path(sys.argv[2])
env = gymnasium.make("CartPole-v1")
world = rl.Spaces(observations=2, actions=rl.environments.Discrete(2))
body = rl.Body(
    cell=lambda inputs: ft.cells.mingru(hidden=32, inputs=inputs),
    learner=ft.rtrl,  # exact, and cheap for this cell; for a GRU lambda cell: ft.low_rank(cell, rank=4)
)
agent = rl.stream_ac(world, body, trace_decay=0.9)
act = rl.jit_act(agent)

# An episode begins from its own number, so that a run that goes on sees what it would have seen.
everything = {"agent": agent.init(jax.random.key(0)), "episode": 0}
if folder.exists():
    everything = ft.load(folder, like=everything)
state, first = everything["agent"], everything["episode"]
returns = []
for episode in range(first, episodes):
    observation, _ = env.reset(seed=episode)
    call = (0.0, False, False, True)  # reward, terminated, truncated, first
    total, over = 0.0, False
    while True:
        # Learns from the transition that ends here, then acts: once more after the last step.
        state, action = act(state, observation[np.array([0, 2])], *call)
        if over:
            break
        observation, reward, terminated, truncated, _ = env.step(int(action))
        call, over = (float(reward), terminated, truncated, False), terminated or truncated
        total += float(reward)
    returns.append(total)
    if (episode + 1) % 50 == 0 or episode + 1 == episodes:
        ft.save(folder, {"agent": state, "episode": episode + 1})
        print(f"episode {episode + 1}: mean return {np.mean(returns):.1f} of the last {len(returns)}")
        returns = []
