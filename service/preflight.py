"""Checks of the settings that need no loading, which may take minutes; imports no torch."""

from model_store.format.store import Store
from service.access.api_keys import read_keys
from service.generation.server import read_key
from service.redis_client.urls import parse_redis_url
from service.settings import Settings, SettingsError


def check_settings(settings: Settings) -> None:
    """Reads the files of keys, the Redis URL and the names of the models once.

    Raises:
        SettingsError: settings contradict each other.
        AgentPRMError: a file or the URL cannot be used, or there is no such model.
    """
    if settings.guard_metrics and settings.api_keys_file is None:
        raise SettingsError("AGENTPRM_GUARD_METRICS is of no use without AGENTPRM_API_KEYS_FILE")
    if settings.api_keys_file is not None:
        read_keys(settings.api_keys_file)
    for file in (settings.judge_api_key_file, settings.policy_api_key_file):
        read_key(file)
    if settings.redis_url:
        parse_redis_url(settings.redis_url)
    store = Store(settings.model_store)
    for name in settings.models:
        store.reference(name)
