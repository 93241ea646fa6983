from domainclip.config.loading import load_recipe as load_recipe
from domainclip.config.recipe import Recipe as Recipe
from domainclip.inference.adapted_model import AdaptedModel as AdaptedModel
from domainclip.inference.adapted_model import load_model as load_model
from domainclip.pipelines.api import evaluate as evaluate
from domainclip.pipelines.api import finetune as finetune

__version__: str
