from evals.any_sampler import score as score
from pipelines.app.entrance.model import Model as Model
from pipelines.app.entrance.model import load_model as load_model
from pipelines.app.entrance.study import Study as Study
from pipelines.app.entrance.study import StudyPlan as StudyPlan
from pipelines.app.entrance.study import StudyResult as StudyResult

__all__ = ["Model", "Study", "StudyPlan", "StudyResult", "__version__", "load_model", "score"]

__version__: str
