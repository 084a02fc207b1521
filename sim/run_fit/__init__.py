"""Constants of one deployment from its own benchmark runs: few, named, bounded, judged on runs that were not fitted."""

from sim.run_fit.calibration import RunCalibration as RunCalibration
from sim.run_fit.calibration import read_run_calibration as read_run_calibration
from sim.run_fit.calibration import write_run_calibration as write_run_calibration
from sim.run_fit.constants import Constant as Constant
from sim.run_fit.constants import with_constants as with_constants
from sim.run_fit.fit import RunFit as RunFit
from sim.run_fit.fit import fit_run as fit_run
from sim.run_fit.runs import RunErrors as RunErrors
