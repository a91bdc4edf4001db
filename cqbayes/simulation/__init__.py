"""The only loop over rounds, and what is measured in it.

``loop`` runs a policy in an environment, ``checkpoint`` lets a run that was killed go on, ``prng``
draws its random numbers; ``regret`` sums up a run, ``comparison`` runs several policies in one
world, ``worlds`` makes worlds by name, ``policy_switching`` says where regret comes from.

May import: ``policies`` and rooms before.
"""
