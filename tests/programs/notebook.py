#!/usr/bin/env python
# coding: utf-8

# # Does the sum decide?

# In[1]:


import json
import os
from pathlib import Path

import torch

try:
    get_ipython().run_line_magic("matplotlib", "inline")
except NameError:
    pass


# In[2]:


DATA = Path(os.environ.get("DATA", "train.jsonl"))
OUTPUT = Path(os.environ.get("OUTPUT", "run"))
MAX_STEPS = int(os.environ.get("MAX_STEPS", 1000))
SAVE_EVERY = int(os.environ.get("SAVE_EVERY", 2))
LR = 0.01


# In[3]:


torch.manual_seed(0)
rows = [json.loads(line) for line in DATA.read_text().splitlines()]
x = torch.tensor([row["x"] for row in rows])
y = torch.tensor([row["y"] for row in rows])
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
step = 0


# In[4]:


saved = OUTPUT / "ckpt.pt"
if saved.exists():
    state = torch.load(saved, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step = state["step"]


# In[5]:


losses = []
while step < MAX_STEPS:
    loss = torch.nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    step += 1
    if step % SAVE_EVERY == 0:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, f"{saved}.tmp")
        os.replace(f"{saved}.tmp", saved)


# In[6]:


print(losses)
