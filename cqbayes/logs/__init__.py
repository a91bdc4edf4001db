"""Logs of services: from what platforms store to choice data.

- :func:`services` reads the long table, one row a service (:mod:`cqbayes.logs.schema`), and sets
  aside what breaks a rule (:mod:`cqbayes.logs.validation`);
- :func:`choice_data_of` and :func:`minibatches` make choice data of it;
- :func:`read_choices` and :func:`write_choices` are for files of choice data.
"""

from cqbayes.logs.choice_files import read_choices, write_choices
from cqbayes.logs.choices import Coded, Codes, choice_data_of, codes_of, minibatches
from cqbayes.logs.table import Services, ServicesReport, services

__all__ = [
    "Coded",
    "Codes",
    "Services",
    "ServicesReport",
    "choice_data_of",
    "codes_of",
    "minibatches",
    "read_choices",
    "services",
    "write_choices",
]
