"""A Result against a measured run: what other tools' files say, and where the simulation departs from it."""

from sim.compare.comparison import Comparison as Comparison
from sim.compare.comparison import Statistic as Statistic
from sim.compare.comparison import compare as compare
from sim.compare.measured import Columns as Columns
from sim.compare.measured import Measured as Measured
from sim.compare.sources import read_measured as read_measured
from sim.compare.vllm_bench_writer import to_vllm_bench as to_vllm_bench
from sim.compare.vllm_bench_writer import write_vllm_bench as write_vllm_bench
